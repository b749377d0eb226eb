//! The simulator as its users meet it: started for real, called over the network.

#![expect(clippy::unwrap_used, reason = "a helper of a test may panic as the test itself may")]

mod access;
mod callbacks;
mod command;
mod control;
mod faults;
mod limit;
mod listening;
mod login;
mod receiver;
mod refresh;
mod settings;
mod support;
mod waiting;
