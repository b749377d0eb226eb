//! A simulator of B2BINPAY's authentication API and callbacks, v2 and v3, with faults on demand.
//!
//! [`Simulator::start`] gives a server on a free loopback port that answers as the real one does: the sliding limit,
//! single-use refresh tokens, signed answers, the published forms in all their variety. [`Simulator::inject`] makes
//! calls go wrong, [`Simulator::calls`] tells what was asked, and [`Simulator::next_call`] and its siblings wait for
//! it without sleeping. The [`cli`] module is the same as a program, controllable over HTTP.
//!
//! It shares no code with any client of the API: a test in which both sides come from one hand proves little.
//!
//! ```
//! use b2binpay_simulator::{Fault, FaultKind, Settings, Simulator};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let simulator = Simulator::start(Settings::default()).await?;
//! simulator.inject(Fault::new(FaultKind::status(503, None, "Try later.")).times(2));
//! println!("call {} as {:?}", simulator.base_url(), simulator.credentials());
//! # Ok::<_, b2binpay_simulator::StartError>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod api;
pub mod callback;
pub mod cli;
mod client;
pub mod clock;
mod control;
mod duration;
pub mod fault;
mod fingerprint;
mod limit;
pub mod log;
mod server;
pub mod settings;
mod sign;
mod simulator;
mod token;
mod wire;

pub use callback::{
    Attempt, CallbackForm, CallbackKind, CallbackSpec, Delivery, DeliveryError, DeliveryPlan,
};
pub use clock::{Clock, ManualClock};
pub use fault::{Fault, FaultKind, Target};
pub use fingerprint::Fingerprint;
pub use log::{Call, Calls, Endpoint, Outcome};
pub use server::tls::{TlsError, TlsFiles};
pub use settings::{Api, Credentials, Generation, Settings};
pub use simulator::{Builder, CallWatch, Simulator, StartError};

/// The examples of the README are compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
