//! Reading a fault from JSON, strictly: a name with a typo must not become a fault with a default.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Fault, FaultKind, Target};
use crate::duration;

impl Fault {
    /// Reads a fault as the control API takes it. Names that the kind doesn't know are errors.
    pub fn from_json(text: &str) -> Result<Self, String> {
        // serde can't refuse unknown names in a struct that flattens another, so the common part is taken out by hand.
        #[derive(Deserialize)]
        struct Common {
            #[serde(default)]
            target: Target,
            times: Option<u32>,
            #[serde(default)]
            delay: Option<duration::Plain>,
            #[serde(default)]
            processed: bool,
        }
        let read = |error: serde_json::Error| format!("this is no fault: {error}");
        let mut object: Map<String, Value> = serde_json::from_str(text).map_err(read)?;
        object.entry("times").or_insert_with(|| 1.into());
        let names = ["target", "times", "delay", "processed"];
        let common: Map<_, _> = names.into_iter().filter_map(|name| object.remove_entry(name)).collect();
        let common: Common = serde_json::from_value(common.into()).map_err(read)?;
        let given = Value::Object(object);
        let kind: FaultKind = serde_json::from_value(given.clone()).map_err(read)?;
        if let Some(name) = unknown_name(&given, &serde_json::json!(kind)) {
            return Err(format!("this is no fault: {} knows no {name}", kind.name()));
        }
        let fault = Self {
            kind,
            target: common.target,
            times: common.times,
            delay: common.delay.map_or(Duration::ZERO, |duration::Plain(delay)| delay),
            processed: common.processed,
        };
        fault.check()?;
        Ok(fault)
    }
}

/// A name that was given and means nothing: what was understood, written again, doesn't have it. serde doesn't find
/// these by itself in kinds without fields.
fn unknown_name(given: &Value, understood: &Value) -> Option<String> {
    use Value::{Array, Null, Object};
    match (given, understood) {
        (Object(given), Object(understood)) => {
            given.iter().find_map(|(name, value)| match understood.get(name) {
                Some(known) => unknown_name(value, known),
                None => (*value != Null).then(|| name.clone()),
            })
        }
        (Array(given), Array(understood)) => {
            given.iter().zip(understood).find_map(|(given, understood)| unknown_name(given, understood))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_with_its_defaults() {
        let fault = Fault::from_json(r#"{"kind":"html"}"#).unwrap();
        assert_eq!(fault, Fault::new(FaultKind::Html { status: 502 }));
        let fault =
            Fault::from_json(r#"{"kind":"hang","times":null,"target":"refresh","delay":"2s"}"#).unwrap();
        let expected = Fault::new(FaultKind::Hang).on(Target::Refresh).until_cleared();
        assert_eq!(fault, expected.delayed(Duration::from_secs(2)));
    }

    #[test]
    fn a_fault_that_can_not_be_is_refused_with_the_reason() {
        for (json, reason) in [
            (r#"{"kind":"hang","tmies":2}"#, "tmies"),
            (r#"{"kind":"hung"}"#, "hung"),
            (r#"{"kind":"html","sttaus":502}"#, "sttaus"),
            (r#"{"kind":"flaky","probability":1,"kinds":[{"kind":"empty","status":502}]}"#, "status"),
            (r#"{"kind":"status","status":20}"#, "200 to 599"),
            (r#"{"kind":"html","times":0}"#, "times"),
            (r#"{"kind":"flaky","probability":2,"kinds":[{"kind":"hang"}]}"#, "between 0 and 1"),
            (r#"{"kind":"flaky","probability":1,"kinds":[]}"#, "kinds"),
        ] {
            let error = Fault::from_json(json).unwrap_err();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }

    #[test]
    fn what_is_shown_of_a_fault_can_be_read_again() {
        let fault = Fault::new(FaultKind::status(503, None, "later")).times(3);
        assert_eq!(Fault::from_json(&serde_json::to_string(&fault).unwrap()), Ok(fault));
    }
}
