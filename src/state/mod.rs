//! What outlives the process, in `[state] directory`: never a token, never a secret.

mod call_record;
mod lockdown;

pub use call_record::CallRecordFile;
pub use lockdown::LockdownFlag;

#[cfg(test)]
mod long_run;
