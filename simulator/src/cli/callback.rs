//! Ordering a callback from a running simulator.

use std::io::Write;

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::CliError;
use super::remote::Remote;

#[derive(Args)]
pub(super) struct CallbackArgs {
    /// Where to post it; without it the signed body is printed
    url: Option<String>,
    /// deposit or payout
    #[arg(long, default_value = "deposit")]
    kind: String,
    /// Whose key signs it: v2 or v3
    #[arg(long, default_value = "v3")]
    api: String,
    /// genuine, no_transfer (unsigned), wrong_sign or other_key
    #[arg(long, default_value = "genuine")]
    form: String,
    /// Change the amount to this one after signing
    #[arg(long, value_name = "AMOUNT", conflicts_with = "form")]
    change_amount_to: Option<String>,
    /// The transfer's amount
    #[arg(long)]
    amount: Option<String>,
    /// The currency's letters
    #[arg(long)]
    currency: Option<String>,
    /// The number of the currency's decimals
    #[arg(long)]
    exp: Option<u32>,
    /// The transfer's status, -3 to 2
    #[arg(long, allow_negative_numbers = true)]
    status: Option<i64>,
    /// The service's own name for the deposit or payout
    #[arg(long)]
    tracking_id: Option<String>,
    /// The id of the deposit or payout
    #[arg(long)]
    id: Option<String>,
    /// meta.time, instead of the server's clock
    #[arg(long)]
    time: Option<String>,
    /// How often to post it until the answer is 200
    #[arg(long, default_value = "5")]
    tries: u32,
    /// How long to wait between tries
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pause: String,
    /// How often to send it once more after the 200
    #[arg(long, default_value = "0")]
    duplicates: u32,
    #[command(flatten)]
    remote: Remote,
}

impl CallbackArgs {
    fn order(&self) -> Value {
        let form = match &self.change_amount_to {
            Some(amount) => json!({ "amount_changed": amount }),
            None => json!(self.form),
        };
        let mut spec = json!({
            "kind": self.kind, "api": self.api, "form": form, "amount": self.amount, "currency": self.currency,
            "exp": self.exp, "status": self.status, "tracking_id": self.tracking_id, "id": self.id,
            "time": self.time,
        });
        // What was not given is the simulator's to choose.
        if let Some(spec) = spec.as_object_mut() {
            spec.retain(|_, value| !value.is_null());
        }
        let plan = json!({ "tries": self.tries, "pause": self.pause, "duplicates": self.duplicates });
        json!({ "url": self.url, "callback": spec, "delivery": plan })
    }
}

pub(super) async fn callback(args: CallbackArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let answer = args.remote.call(Method::POST, "callbacks", Some(args.order())).await?;
    out.write_all(&answer)?;
    let refused =
        || serde_json::from_slice::<Value>(&answer).is_ok_and(|answer| answer["delivered"] == false);
    if args.url.is_some() && refused() { Err(CliError::NotDelivered) } else { Ok(()) }
}
