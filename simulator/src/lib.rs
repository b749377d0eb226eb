//! A simulator of B2BINPAY's authentication API and callbacks, v2 and v3, with faults on demand.

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
