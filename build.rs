//! Compiles `proto/` with protox, so that no protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

use protox::prost::Message;

/// Messages that carry a token, or text that can: they get no derived `Debug`.
const SECRET_MESSAGES: [&str; 5] = [
    ".b2binpay.broker.v1.GetAccessTokenResponse",
    ".b2binpay.broker.v1.WatchAccessTokenResponse",
    ".b2binpay.broker.v1.TokenResponse",
    ".b2binpay.broker.v1.SignedMessage",
    ".b2binpay.broker.v1.VerifySignRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    let files =
        ["proto/b2binpay/broker/v1/token_broker.proto", "proto/b2binpay/broker/v1/broker_admin.proto"];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    let mut prost = tonic_prost_build::Config::new();
    prost.skip_debug(SECRET_MESSAGES);
    tonic_prost_build::configure()
        .build_transport(false)
        .codec_path("crate::grpc::codec::OneByOne")
        .compile_fds_with_config(descriptors, prost)?;
    Ok(())
}
