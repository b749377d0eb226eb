//! A simulator of B2BINPAY's authentication API.
