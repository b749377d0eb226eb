//! Exit codes, nothing else.

use std::process::ExitCode;

use b2binpay_broker::cli;
use clap::Parser;

/// Overwrites memory when it is freed: the copies of tokens and secrets that HTTP and JSON buffers hold included.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    // The one crypto provider of the process. It fails only if there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::run(cli::Arguments::parse()).into()
}
