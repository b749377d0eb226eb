//! Which permission each method needs. What is not in this table is served to nobody.

use crate::policy::Permission;

/// How a method answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// One message in, one out, by a service of ours: its errors carry their details already.
    Unary,
    /// A stream, or a service that is not ours: it is watched while it answers.
    Watched,
}

/// What the guard knows of a method.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    /// Any one of them is enough to get in. `VerifySign` looks again once it knows what is to be verified.
    pub(super) permissions: &'static [Permission],
    pub(super) shape: Shape,
    /// Whether a request is one message, which must arrive in time, and not a stream of them.
    pub(super) one_message: bool,
    /// Whether an answer that took a while is for those alone who may still call.
    pub(super) gives_tokens: bool,
}

impl Method {
    const fn ours(permissions: &'static [Permission], shape: Shape) -> Self {
        Self { permissions, shape, one_message: true, gives_tokens: false }
    }

    const fn library(permissions: &'static [Permission], one_message: bool) -> Self {
        Self { permissions, shape: Shape::Watched, one_message, gives_tokens: false }
    }

    /// The method at this path, such as `/b2binpay.broker.v1.TokenBrokerService/GetAccessToken`.
    pub(super) fn at(path: &str) -> Option<Self> {
        use Permission as P;
        Some(match path {
            "/b2binpay.broker.v1.TokenBrokerService/GetAccessToken" => {
                Self { gives_tokens: true, ..Self::ours(&[P::GetAccessToken], Shape::Unary) }
            }
            "/b2binpay.broker.v1.TokenBrokerService/WatchAccessToken" => {
                Self { gives_tokens: true, ..Self::ours(&[P::WatchAccessToken], Shape::Watched) }
            }
            "/b2binpay.broker.v1.TokenBrokerService/VerifySign" => {
                Self::ours(&[P::VerifySign, P::VerifySignMessage], Shape::Unary)
            }
            "/b2binpay.broker.v1.BrokerAdminService/GetStatus" => {
                Self::ours(&[P::AdminGetStatus], Shape::Unary)
            }
            "/b2binpay.broker.v1.BrokerAdminService/Reload" => Self::ours(&[P::AdminReload], Shape::Unary),
            "/b2binpay.broker.v1.BrokerAdminService/Lockdown" => {
                Self::ours(&[P::AdminLockdown], Shape::Unary)
            }
            "/b2binpay.broker.v1.BrokerAdminService/Unlock" => Self::ours(&[P::AdminUnlock], Shape::Unary),
            "/grpc.health.v1.Health/Check" | "/grpc.health.v1.Health/Watch" => {
                Self::library(&[P::Health], true)
            }
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => {
                Self::library(&[P::Reflection], false)
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn every_method_that_is_described_stands_in_the_table() {
        let described = prost_types::FileDescriptorSet::decode(super::super::DESCRIPTORS).unwrap();
        let mut methods = 0;
        for file in described.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let found = Method::at(&path).unwrap_or_else(|| panic!("{path} is not in the table"));
                    let streams = method.server_streaming();
                    assert_eq!(found.shape == Shape::Watched, streams, "{path}");
                    assert_eq!(found.one_message, !method.client_streaming(), "{path}");
                    methods += 1;
                }
            }
        }
        assert!(methods >= 4);
    }

    #[test]
    fn what_is_not_in_the_table_is_no_method() {
        for path in [
            "",
            "/",
            "/b2binpay.broker.v1.TokenBrokerService/",
            "/b2binpay.broker.v1.TokenBrokerService/getaccesstoken",
        ] {
            assert!(Method::at(path).is_none(), "{path}");
        }
    }
}
