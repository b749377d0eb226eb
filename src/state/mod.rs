//! What outlives the process, in `[state] directory`: never a token, never a secret.

mod call_record;

pub use call_record::CallRecordFile;

#[cfg(test)]
mod long_run;
