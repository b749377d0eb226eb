//! How messages become bytes: as prost does it, in buffers that hold one message each.
//!
//! tonic's own buffers take several messages of a stream, and live as long as the stream: a token that was replaced hours ago
//! would still be in memory, behind its successors. Here each message gets an allocation of its own, which is given back, and
//! so overwritten, when it was sent and its successor is made. (`guard` keeps hold of a stream's last message until then:
//! an allocation that nobody else holds would be used again, and a longer message's end stay behind a shorter one.)

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
};
use tonic_prost::{ProstCodec, ProstDecoder};

/// Encodes each message into memory of its own.
pub(super) struct OneByOne<E, D>(ProstCodec<E, D>);

impl<E, D> Default for OneByOne<E, D> {
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<E: Message + 'static, D: Message + Default + 'static> Codec for OneByOne<E, D> {
    type Encode = E;
    type Decode = D;
    type Encoder = Exact<E>;
    type Decoder = ProstDecoder<D>;

    fn encoder(&mut self) -> Exact<E> {
        Exact(PhantomData)
    }

    fn decoder(&mut self) -> ProstDecoder<D> {
        self.0.decoder()
    }
}

/// Makes room for the whole message at once: a buffer that grows step by step is left behind at each.
pub(super) struct Exact<E>(PhantomData<E>);

impl<E: Message> Encoder for Exact<E> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, message: E, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.reserve(message.encoded_len());
        message.encode(into).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        // Nothing in advance, and nothing put together.
        BufferSettings::new(0, 0)
    }
}
