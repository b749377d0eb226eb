//! Callbacks: what B2BINPAY posts to a service's own URL, genuine and forged.

mod delivery;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::settings::{Generation, Settings};
use crate::sign;

pub(crate) use delivery::deliver;
pub use delivery::{Attempt, Delivery, DeliveryError, DeliveryPlan};

/// What a callback reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallbackKind {
    /// Money came in.
    #[default]
    Deposit,
    /// Money went out.
    Payout,
}

/// How true a callback is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallbackForm {
    /// Signed, and as signed.
    #[default]
    Genuine,
    /// About a deposit without a transfer, as when it expired: carries no sign, and is genuine all the same.
    NoTransfer,
    /// The sign is not one that the key makes.
    WrongSign,
    /// Signed, then the transfer's amount was changed to this one.
    AmountChanged(String),
    /// Signed with the other generation's key.
    OtherKey,
}

/// A callback to make. Start from `CallbackSpec::default()`: a confirmed v3 deposit of 0.3 ETH.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallbackSpec {
    /// What it reports.
    pub kind: CallbackKind,
    /// Whose key signs it: in v2 the credentials, in v3 the callback secret.
    pub api: Generation,
    /// How true it is.
    pub form: CallbackForm,
    /// The id of the deposit or payout.
    pub id: String,
    /// The service's own name for it; may be empty.
    pub tracking_id: String,
    /// The transfer's status: -3 canceled, -2 blocked, -1 failed, 0 created, 1 unconfirmed, 2 confirmed.
    pub status: i64,
    /// The transfer's amount, as it stands in the body. Nothing here checks that it is a number.
    pub amount: String,
    /// The currency's letters.
    pub currency: String,
    /// The number of decimals of the currency.
    pub exp: u32,
    /// `meta.time`, as it stands in the body. `None`: the server's clock.
    pub time: Option<String>,
}

impl Default for CallbackSpec {
    fn default() -> Self {
        Self {
            kind: CallbackKind::Deposit,
            api: Generation::V3,
            form: CallbackForm::Genuine,
            id: "11203".to_owned(),
            tracking_id: "order-77".to_owned(),
            status: 2,
            amount: "0.300000000000000000".to_owned(),
            currency: "ETH".to_owned(),
            exp: 18,
            time: None,
        }
    }
}

impl CallbackSpec {
    /// The body, signed with the keys in `settings`. `now`: the time for a callback that names none.
    pub(crate) fn body(&self, settings: &Settings, now: &str) -> Vec<u8> {
        let time = self.time.as_deref().unwrap_or(now);
        let mut body = self.unsigned(time);
        if self.form != CallbackForm::NoTransfer {
            let sign = self.sign(settings, time);
            body["meta"]["sign"] = sign.into();
        }
        body.to_string().into_bytes()
    }

    fn sign(&self, settings: &Settings, time: &str) -> String {
        let signer = match (self.api, &self.form) {
            (Generation::V2, CallbackForm::OtherKey) => Generation::V3,
            (Generation::V3, CallbackForm::OtherKey) => Generation::V2,
            (generation, _) => generation,
        };
        let parts = [&self.status.to_string(), &*self.amount, &self.tracking_id, time];
        let credentials = &settings.credentials;
        let sign = match signer {
            Generation::V2 => sign::sign(&sign::v2_key(&credentials.key, &credentials.secret), &parts),
            Generation::V3 => sign::sign(settings.callback_secret.as_bytes(), &parts),
        };
        if self.form == CallbackForm::WrongSign { sign::wrong(&sign) } else { sign }
    }

    fn unsigned(&self, time: &str) -> Value {
        const ADDRESS: &str = "0xcb959a408cbfbe64116a2dadc20188c290226fae";
        let reference = |kind: &str, id: &str| json!({ "data": { "type": kind, "id": id } });
        let currency = json!({
            "type": "currency",
            "id": "1002",
            "attributes": {
                "iso": 1002, "name": self.currency, "alpha": self.currency, "alias": null, "exp": self.exp,
                "confirmation_blocks": 3, "minimal_transfer_amount": "0", "block_delay": 30,
            },
        });
        let mut relationships =
            json!({ "currency": reference("currency", "1002"), "wallet": reference("wallet", "318") });
        let mut included = vec![currency];
        if self.form != CallbackForm::NoTransfer {
            relationships["transfer"] = reference("transfer", "17618");
            included.push(self.transfer(time));
        }
        json!({
            "data": {
                "type": self.kind,
                "id": self.id,
                "attributes": {
                    "address": ADDRESS,
                    "created_at": time,
                    "tracking_id": self.tracking_id,
                    "target_paid": self.amount,
                    "destination": { "address_type": null, "address": ADDRESS },
                },
                "relationships": relationships,
            },
            "included": included,
            "meta": { "time": time },
        })
    }

    fn transfer(&self, time: &str) -> Value {
        let amount = match &self.form {
            CallbackForm::AmountChanged(changed) => changed,
            _ => &self.amount,
        };
        json!({
            "type": "transfer",
            "id": "17618",
            "attributes": {
                "confirmations": 3, "risk": 0, "risk_status": 4, "op_id": 11203,
                "op_type": match self.kind { CallbackKind::Deposit => 1, CallbackKind::Payout => 2 },
                "amount": amount, "commission": "0", "fee": "0",
                "txid": "0xa09cb1de38b9b21712ff18d08d6a625cc80ec41c9e64586095d4c46449a9eb51",
                "status": self.status, "user_message": null, "created_at": time, "updated_at": time,
            },
            "relationships": { "currency": { "data": { "type": "currency", "id": "1002" } } },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Credentials;

    #[derive(Deserialize)]
    struct Vectors {
        login: String,
        password: String,
        callback_secret: String,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        key: Generation,
        sign: String,
        callback: Option<CallbackSpec>,
    }

    fn vectors() -> Vectors {
        serde_json::from_str(include_str!("../../tests/vectors/sign.json")).unwrap()
    }

    fn made(spec: &CallbackSpec) -> Value {
        serde_json::from_slice(&spec.body(&Settings::default(), "2025-11-02T08:00:00.000001Z")).unwrap()
    }

    #[test]
    fn callbacks_are_signed_as_in_the_vectors() {
        let Vectors { login, password, callback_secret, cases } = vectors();
        let credentials = Credentials::new(login, password);
        let settings = Settings { credentials, callback_secret, ..Settings::default() };
        let mut checked = 0;
        for Case { name, key, sign, callback } in cases {
            let Some(spec) = callback else { continue };
            let body = CallbackSpec { api: key, ..spec }.body(&settings, "unused");
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["meta"]["sign"], sign, "{name}");
            checked += 1;
        }
        assert!(checked >= 4, "the vectors are all there");
    }

    #[test]
    fn a_callback_without_a_transfer_has_no_sign() {
        let body = made(&CallbackSpec { form: CallbackForm::NoTransfer, ..CallbackSpec::default() });
        assert_eq!(body.pointer("/meta/sign"), None);
        assert_eq!(body["included"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_changed_amount_keeps_the_sign_of_the_old_one() {
        let genuine = made(&CallbackSpec::default());
        let form = CallbackForm::AmountChanged("9.3".to_owned());
        let forged = made(&CallbackSpec { form, ..CallbackSpec::default() });
        assert_eq!(forged["meta"]["sign"], genuine["meta"]["sign"]);
        assert_eq!(forged.pointer("/included/1/attributes/amount"), Some(&json!("9.3")));
    }

    #[test]
    fn wrong_signs_differ_from_the_right_one() {
        let right = made(&CallbackSpec::default())["meta"]["sign"].clone();
        for form in [CallbackForm::WrongSign, CallbackForm::OtherKey] {
            let wrong = made(&CallbackSpec { form, ..CallbackSpec::default() })["meta"]["sign"].clone();
            assert!(wrong != right && wrong.as_str().unwrap().len() == 64, "{wrong}");
        }
    }
}
