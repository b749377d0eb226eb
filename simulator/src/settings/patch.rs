//! Settings as JSON: what the control API shows of them, and a change of some of them.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::{Api, RetryAfter, Settings};
use crate::duration::{Plain, Signed, friendly};
use crate::fingerprint::Fingerprint;

/// A change of some settings: what is absent stays as it is. An unknown name is an error.
///
/// `access_lifetime` and `allowed_addresses` may be `null`, which sets them back to their defaults.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SettingsPatch {
    api: Option<Api>,
    key: Option<String>,
    secret: Option<String>,
    callback_secret: Option<String>,
    access_lifetime: Nullable<Plain>,
    refresh_lifetime: Option<Plain>,
    clock_offset: Option<Signed>,
    limit_calls: Option<usize>,
    limit_window: Option<Plain>,
    retry_after: Option<RetryAfter>,
    allowed_addresses: Nullable<Vec<IpAddr>>,
    rotation_ends_refresh: Option<bool>,
    expiry_offset: Option<String>,
    null_id: Option<bool>,
    refresh_at_top_level: Option<bool>,
    fraction: Option<bool>,
    callbacks_anywhere: Option<bool>,
}

/// A setting that may be `null`, which is a value here and not the same as an absent name.
#[derive(Clone, Default)]
enum Nullable<T> {
    #[default]
    Absent,
    Present(Option<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Nullable<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Option::deserialize(from).map(Self::Present)
    }
}

impl SettingsPatch {
    /// Changes `settings`, all of it or, with an error, nothing.
    pub(crate) fn apply(self, settings: &mut Settings) -> Result<(), String> {
        fn put<T>(to: &mut T, from: Option<T>) {
            if let Some(value) = from {
                *to = value;
            }
        }
        let expiry_offset = self.expiry_offset.map(|text| text.parse()).transpose()?;
        if self.limit_calls == Some(0) {
            return Err("limit_calls is 0, which would let nobody in ever; inject a fault instead".to_owned());
        }
        put(&mut settings.api, self.api);
        put(&mut settings.credentials.key, self.key);
        put(&mut settings.credentials.secret, self.secret);
        put(&mut settings.callback_secret, self.callback_secret);
        if let Nullable::Present(lifetime) = self.access_lifetime {
            settings.access_lifetime = lifetime.map(|Plain(lifetime)| lifetime);
        }
        put(&mut settings.refresh_lifetime, self.refresh_lifetime.map(|Plain(lifetime)| lifetime));
        put(&mut settings.clock_offset, self.clock_offset.map(|Signed(offset)| offset));
        put(&mut settings.limit.calls, self.limit_calls);
        put(&mut settings.limit.window, self.limit_window.map(|Plain(window)| window));
        put(&mut settings.retry_after, self.retry_after);
        if let Nullable::Present(addresses) = self.allowed_addresses {
            settings.allowed_addresses = addresses;
        }
        put(&mut settings.rotation_ends_refresh, self.rotation_ends_refresh);
        put(&mut settings.forms.expiry_offset, expiry_offset);
        put(&mut settings.forms.null_id, self.null_id);
        put(&mut settings.forms.refresh_at_top_level, self.refresh_at_top_level);
        put(&mut settings.forms.fraction, self.fraction);
        put(&mut settings.callbacks_anywhere, self.callbacks_anywhere);
        Ok(())
    }
}

impl Settings {
    /// The settings under the names that the control API takes; of secrets only their fingerprints.
    pub fn to_json(&self) -> Value {
        json!({
            "api": self.api,
            "key": self.credentials.key,
            "secret_fingerprint": Fingerprint::of(&self.credentials.secret),
            "callback_secret_fingerprint": Fingerprint::of(&self.callback_secret),
            "access_lifetime": self.access_lifetime.map(friendly),
            "refresh_lifetime": friendly(self.refresh_lifetime),
            "clock_offset": format!("{:#}", self.clock_offset),
            "limit_calls": self.limit.calls,
            "limit_window": friendly(self.limit.window),
            "retry_after": self.retry_after,
            "allowed_addresses": self.allowed_addresses,
            "rotation_ends_refresh": self.rotation_ends_refresh,
            "expiry_offset": self.forms.expiry_offset.to_string(),
            "null_id": self.forms.null_id,
            "refresh_at_top_level": self.forms.refresh_at_top_level,
            "fraction": self.forms.fraction,
            "callbacks_anywhere": self.callbacks_anywhere,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn patched(patch: &str) -> Result<Settings, String> {
        let mut settings = Settings { access_lifetime: Some(Duration::from_secs(7)), ..Settings::default() };
        let patch: SettingsPatch = serde_json::from_str(patch).map_err(|error| error.to_string())?;
        patch.apply(&mut settings)?;
        Ok(settings)
    }

    #[test]
    fn an_absent_name_changes_nothing_and_null_sets_back() {
        assert_eq!(patched("{}").unwrap().access_lifetime, Some(Duration::from_secs(7)));
        assert_eq!(patched(r#"{"access_lifetime":null}"#).unwrap().access_lifetime, None);
        assert_eq!(
            patched(r#"{"access_lifetime":"60s"}"#).unwrap().access_lifetime,
            Some(Duration::from_secs(60))
        );
    }

    #[test]
    fn an_unknown_name_is_an_error_that_names_it() {
        assert!(patched(r#"{"acces_lifetime":"60s"}"#).unwrap_err().contains("acces_lifetime"));
    }

    #[test]
    fn every_name_shown_can_be_changed_except_fingerprints() {
        let Value::Object(shown) = Settings::default().to_json() else { panic!("settings are an object") };
        for (name, value) in shown.into_iter().filter(|(name, _)| !name.ends_with("_fingerprint")) {
            let patch = json!({ &name: value }).to_string();
            assert!(patched(&patch).is_ok(), "{patch}");
        }
    }
}
