//! HTTP/2 by hand, for those who mean no good: <https://www.rfc-editor.org/rfc/rfc9113>.

use std::{io, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// How long a write may be held up before it is said that the other end takes no more.
const HELD_UP: Duration = Duration::from_secs(2);

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of a call, compressed by nothing but the static table.
pub fn call(path: &str) -> Vec<u8> {
    let text = |text: &str| {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text");
        [&[length], text.as_bytes()].concat()
    };
    // POST, http, and then literals without indexing: a name of the table by its place, or as it is.
    let parts = [
        vec![0x83, 0x86, 0x04],
        text(path),
        vec![0x01],
        text("localhost"),
        vec![0x0f, 0x10],
        text("application/grpc"),
        vec![0],
        text("te"),
        text("trailers"),
    ];
    parts.concat()
}

/// What every connection begins with.
pub fn greeting() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()
}

/// Reads frames until one of this kind has come; an error if the connection ends before.
pub async fn read_until(stream: &mut (impl AsyncRead + Unpin), kind: u8) -> io::Result<()> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await?;
        if head[3] == kind {
            return Ok(());
        }
    }
}

/// Writes `count` pieces, however many the other end takes. Reads nothing. How many were written: fewer, if it closed the
/// connection or takes no more.
pub async fn flood(
    stream: &mut (impl AsyncWrite + Unpin),
    count: u32,
    mut piece: impl FnMut(u32) -> Vec<u8>,
) -> u32 {
    const BATCH: u32 = 100;
    let mut written = 0;
    while written < count {
        let batch: Vec<u8> = (written..count.min(written + BATCH)).flat_map(&mut piece).collect();
        match tokio::time::timeout(HELD_UP, stream.write_all(&batch)).await {
            Ok(Ok(())) => written = count.min(written + BATCH),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    written
}

/// The same, reading what comes back all the while.
pub async fn flood_and_read(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    count: u32,
    piece: impl FnMut(u32) -> Vec<u8>,
) -> u32 {
    let (mut read, mut write) = tokio::io::split(stream);
    let reading = tokio::spawn(async move {
        let mut sink = vec![0; 64 * 1024];
        while read.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    });
    let written = flood(&mut write, count, piece).await;
    drop(write);
    reading.abort();
    written
}
