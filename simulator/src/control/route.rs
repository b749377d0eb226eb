//! Which paths and queries the control API knows.

use http::{Method, StatusCode};

use super::{PREFIX, Refusal};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Help,
    ShowSettings,
    ChangeSettings,
    ShowFaults,
    AddFault,
    ClearFaults,
    ShowCalls,
    ForgetCalls,
    ResetLimit,
    Callback,
    Revoke,
    Outage,
}

impl Route {
    pub(super) fn find(method: &Method, path: &str) -> Result<Self, Refusal> {
        let known: &[(Method, Self)] = match path.strip_prefix(PREFIX).unwrap_or(path).trim_matches('/') {
            "" => &[(Method::GET, Self::Help)],
            "settings" => &[(Method::GET, Self::ShowSettings), (Method::PATCH, Self::ChangeSettings)],
            "faults" => &[
                (Method::GET, Self::ShowFaults),
                (Method::POST, Self::AddFault),
                (Method::DELETE, Self::ClearFaults),
            ],
            "calls" => &[(Method::GET, Self::ShowCalls), (Method::DELETE, Self::ForgetCalls)],
            "limit" => &[(Method::DELETE, Self::ResetLimit)],
            "callbacks" => &[(Method::POST, Self::Callback)],
            "revoke" => &[(Method::POST, Self::Revoke)],
            "outage" => &[(Method::POST, Self::Outage)],
            _ => {
                let reason = format!("there is no {path}; GET {PREFIX}/ lists what there is");
                return Err(Refusal::new(StatusCode::NOT_FOUND, reason));
            }
        };
        let route = known.iter().find(|(known, _)| known == method).map(|&(_, route)| route);
        route.ok_or_else(|| {
            let methods: Vec<_> = known.iter().map(|(method, _)| method.as_str()).collect();
            let reason = format!("{path} takes {}, not {method}", methods.join(" and "));
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, reason)
        })
    }
}

/// The parameters behind the question mark. None of those known here needs percent-encoding.
pub(super) struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    pub(super) fn of(text: Option<&'a str>) -> Self {
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == name).map(|&(_, value)| value)
    }

    /// Refuses every name but these.
    pub(super) fn only(&self, names: &[&str]) -> Result<(), Refusal> {
        match self.0.iter().find(|(name, _)| !names.contains(name)) {
            None => Ok(()),
            Some((name, _)) => {
                Err(Refusal::bad(format!("there is no parameter {name}; there are {}", names.join(" and "))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_with_and_without_a_slash_at_the_end() {
        for path in ["/_simulator/faults", "/_simulator/faults/"] {
            assert_eq!(Route::find(&Method::POST, path).ok(), Some(Route::AddFault));
        }
        assert_eq!(Route::find(&Method::GET, "/_simulator").ok(), Some(Route::Help));
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        let refusal = Route::find(&Method::PUT, "/_simulator/settings").unwrap_err();
        assert_eq!(refusal.status, StatusCode::METHOD_NOT_ALLOWED);
        assert!(refusal.reason.contains("GET and PATCH"), "{}", refusal.reason);
    }

    #[test]
    fn unknown_parameters_are_refused_by_name() {
        let query = Query::of(Some("after=3&wiat=1s"));
        assert_eq!(query.get("after"), Some("3"));
        assert!(query.only(&["after", "wait"]).unwrap_err().reason.contains("wiat"));
    }
}
