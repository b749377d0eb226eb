//! From the bytes of a callback to what they say.
//!
//! Two things are kept apart. A value of the wrong type, a repeated key, a second transfer: nobody can say what such a
//! body means, so it is refused with [`Violation`]s. A value of the right type that breaks a rule (an amount with too
//! many decimals, a time that is none) has a meaning, and what to make of it is decided once the sign is known
//! (`rules`).
//!
//! Missing values: `data.type` and `data.id` must be there. A signed field that is missing is a violation only where
//! there is a sign: without one, the callback can't be anything but unsigned. `meta.sign: null` is a sign that is missing,
//! and so is a missing `meta`. A callback without `included` has no transfer.

use std::{borrow::Cow, fmt};

use super::{
    json::{self, Array, Member, Members, Object, Sort, Source, Text},
    violation::{MISSING, REPEATED, Violation, Violations, text},
    wire::{Body, Included, Linkage, Relationships, Resource},
};

/// The longest callback that is read, in bytes. Genuine ones have about two thousand.
pub const MAX_CALLBACK: usize = 256 * 1024;

/// What a callback is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Money that came in.
    Deposit,
    /// Money that went out.
    Payout,
}

impl Kind {
    /// `deposit` or `payout`, as in the callback.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deposit => "deposit",
            Self::Payout => "payout",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A callback that can be read. Nothing in it is proved.
pub(super) struct Callback<'a> {
    pub(super) kind: Kind,
    pub(super) id: Cow<'a, str>,
    pub(super) transfer: Option<Transfer<'a>>,
    pub(super) tracking_id: Option<Text<'a>>,
    pub(super) time: Option<Cow<'a, str>>,
    pub(super) sign: Option<Cow<'a, str>>,
    /// The signed fields that are missing.
    pub(super) missing: Vec<Violation>,
}

/// The one transfer of a callback.
pub(super) struct Transfer<'a> {
    /// Its place in `included`.
    pub(super) index: usize,
    /// A JSON number as it is written.
    pub(super) status: Option<&'a str>,
    pub(super) amount: Option<Cow<'a, str>>,
    /// The number of decimals of the currency that it names, where that is included.
    pub(super) exp: Option<u32>,
}

/// What the sign of a callback covers, in the order in which it does.
#[derive(Clone, Copy)]
pub(super) struct SignedFields<'a> {
    pub(super) status: &'a str,
    pub(super) amount: &'a str,
    pub(super) tracking_id: &'a Text<'a>,
    pub(super) time: &'a str,
    pub(super) exp: Option<u32>,
}

impl SignedFields<'_> {
    /// The parts of the message that is signed.
    pub(super) fn parts(&self) -> [&str; 4] {
        [self.status, self.amount, &self.tracking_id.decoded, self.time]
    }

    /// The same in bytes.
    pub(super) fn message(&self) -> [&[u8]; 4] {
        self.parts().map(str::as_bytes)
    }
}

impl Callback<'_> {
    /// The signed fields, if all are there. Otherwise [`Callback::missing`] says which are not, or there is no transfer.
    pub(super) fn signed_fields(&self) -> Option<SignedFields<'_>> {
        let transfer = self.transfer.as_ref()?;
        Some(SignedFields {
            status: transfer.status?,
            amount: transfer.amount.as_ref()?,
            tracking_id: self.tracking_id.as_ref()?,
            time: self.time.as_ref()?,
            exp: transfer.exp,
        })
    }
}

/// Reads the body of a callback, or says everything that keeps it from being read.
pub(super) fn read(body: &[u8]) -> Result<Callback<'_>, Vec<Violation>> {
    if body.len() > MAX_CALLBACK {
        let wrong = format!("has {} bytes, more than {MAX_CALLBACK}", body.len());
        return Err(Violations::of_the_whole(wrong));
    }
    match json::read(body).map_err(Violations::of_the_whole)? {
        Object::Is(body) => Reading::default().callback(body),
        Object::IsNot(sort) => Err(Violations::of_the_whole(format!("must be an object, is {sort}"))),
    }
}

/// A place in a callback.
#[derive(Clone, Copy)]
enum At {
    Top(&'static str),
    /// Under the element of `included` at this index.
    Included(usize, &'static str),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top(path) => f.write_str(path),
            Self::Included(index, path) => write!(f, "included[{index}].{path}"),
        }
    }
}

/// What has been found to be wrong so far.
#[derive(Default)]
struct Reading {
    violations: Violations,
    missing: Vec<At>,
}

impl Reading {
    fn callback(mut self, body: Body<'_>) -> Result<Callback<'_>, Vec<Violation>> {
        let data = self.object(body.data, At::Top("data"));
        let kind = self.kind(data.kind);
        let id = self.required_text(data.id, At::Top("data.id"));
        let attributes = self.object(data.attributes, At::Top("data.attributes"));
        let tracking_id = self.signed_text(attributes.tracking_id, At::Top("data.attributes.tracking_id"));
        let transfer = self.transfer(body.included);
        let meta = self.object(body.meta, At::Top("meta"));
        let time = self.signed_text(meta.time, At::Top("meta.time"));
        let sign = match meta.sign {
            Member::Once(source) if Sort::of(source) == Sort::Null => None,
            sign => self.optional_text(sign, At::Top("meta.sign")),
        };

        if transfer.is_some() && sign.is_some() && !self.violations.is_empty() {
            for at in std::mem::take(&mut self.missing) {
                self.wrong(at, MISSING);
            }
        }
        let (Some(kind), Some(id), true) = (kind, id, self.violations.is_empty()) else {
            return Err(self.violations.into_vec());
        };
        let missing = self.missing.into_iter();
        Ok(Callback {
            kind,
            id: id.decoded,
            transfer,
            tracking_id,
            time: time.map(|time| time.decoded),
            sign: sign.map(|sign| sign.decoded),
            missing: missing
                .map(|at| Violation { field: at.to_string(), description: MISSING.to_owned() })
                .collect(),
        })
    }

    fn kind(&mut self, kind: Member<Source<'_>>) -> Option<Kind> {
        let at = At::Top("data.type");
        match &*self.required_text(kind, at)?.decoded {
            "deposit" => Some(Kind::Deposit),
            "payout" => Some(Kind::Payout),
            _ => {
                self.wrong(at, "must be deposit or payout");
                None
            }
        }
    }

    fn transfer<'a>(&mut self, included: Member<Array<Included<'a>>>) -> Option<Transfer<'a>> {
        let included = match self.value(included, At::Top("included"))? {
            Array::Is(included) => included,
            Array::IsNot(sort) => {
                self.wrong(At::Top("included"), format_args!("must be an array, is {sort}"));
                return None;
            }
        };
        self.violations.append(included.violations);
        let currencies = self.currencies(included.currencies);
        let (index, transfer) = included.transfer?;
        let exp = self.exp(index, transfer.relationships, &currencies);
        let attributes = self.object(transfer.attributes, At::Included(index, "attributes"));
        let status = self.status(attributes.status, At::Included(index, "attributes.status"));
        let amount = self.signed_text(attributes.amount, At::Included(index, "attributes.amount"));
        Some(Transfer { index, status, amount: amount.map(|amount| amount.decoded), exp })
    }

    /// Any number passes: whether it has the form of a status is a rule, not a matter of type.
    fn status<'a>(&mut self, status: Member<Source<'a>>, at: At) -> Option<&'a str> {
        if let Member::Absent = status {
            self.missing.push(at);
        }
        let status = self.value(status, at)?;
        match Sort::of(status) {
            Sort::Number => Some(status.get()),
            other => {
                self.wrong(at, format_args!("must be a number, is {other}"));
                None
            }
        }
    }

    /// The currencies that can be named, no two by the same name.
    fn currencies<'a>(&mut self, resources: Vec<(usize, Resource<'a>)>) -> Vec<Currency<'a>> {
        let mut currencies = Vec::with_capacity(resources.len());
        for (index, resource) in resources {
            let id = self.required_text(resource.id, At::Included(index, "id"));
            let attributes = self.object(resource.attributes, At::Included(index, "attributes"));
            let at = At::Included(index, "attributes.exp");
            let says_exp = !matches!(attributes.exp, Member::Absent);
            let exp = self.value(attributes.exp, at).and_then(|source| {
                let exp = source.get().parse().ok();
                if exp.is_none() {
                    self.wrong(at, "must be a whole number of decimals");
                }
                exp
            });
            if let Some(id) = id {
                currencies.push(Currency { id: id.decoded, index, says_exp, exp });
            }
        }
        currencies.sort_by(|one, other| (&one.id, one.index).cmp(&(&other.id, other.index)));
        for pair in currencies.windows(2) {
            if let [first, second] = pair
                && first.id == second.id
            {
                let wrong =
                    format_args!("is the same as included[{}].id: two currencies by one name", first.index);
                self.wrong(At::Included(second.index, "id"), wrong);
            }
        }
        currencies
    }

    /// The decimals of the currency that the transfer at `index` names, if that is among `currencies`.
    fn exp(
        &mut self,
        index: usize,
        relationships: Member<Object<Relationships<'_>>>,
        currencies: &[Currency<'_>],
    ) -> Option<u32> {
        let relationships = self.object(relationships, At::Included(index, "relationships"));
        let currency = self.object(relationships.currency, At::Included(index, "relationships.currency"));
        let linkage: Linkage<'_> = match currency.data {
            // How JSON:API writes that there is none.
            Member::Absent | Member::Once(Object::IsNot(Sort::Null)) => return None,
            data => self.object(data, At::Included(index, "relationships.currency.data")),
        };
        let kind = self.required_text(linkage.kind, At::Included(index, "relationships.currency.data.type"));
        let id = self.required_text(linkage.id, At::Included(index, "relationships.currency.data.id"))?;
        if kind?.decoded != "currency" {
            return None;
        }
        let named = currencies.iter().find(|currency| currency.id == id.decoded)?;
        if !named.says_exp {
            self.wrong(
                At::Included(named.index, "attributes.exp"),
                "must say how many decimals the amount may have",
            );
        }
        named.exp
    }

    fn wrong(&mut self, at: At, description: impl fmt::Display) {
        self.violations.add(at, description);
    }

    fn value<T>(&mut self, member: Member<T>, at: At) -> Option<T> {
        match member {
            Member::Once(value) => Some(value),
            Member::Absent | Member::OutOfReach => None,
            Member::Repeated => {
                self.wrong(at, REPEATED);
                None
            }
        }
    }

    /// What is missing or no object holds nothing.
    fn object<'a, T: Members<'a>>(&mut self, member: Member<Object<T>>, at: At) -> T {
        match member {
            Member::Once(Object::Is(members)) => return members,
            Member::Once(Object::IsNot(sort)) => self.wrong(at, format_args!("must be an object, is {sort}")),
            Member::Repeated => self.wrong(at, REPEATED),
            Member::Absent => return T::default(),
            Member::OutOfReach => {}
        }
        T::out_of_reach()
    }

    fn optional_text<'a>(&mut self, member: Member<Source<'a>>, at: At) -> Option<Text<'a>> {
        text(self.value(member, at)?).inspect_err(|wrong| self.wrong(at, wrong)).ok()
    }

    fn required_text<'a>(&mut self, member: Member<Source<'a>>, at: At) -> Option<Text<'a>> {
        if let Member::Absent = member {
            self.wrong(at, MISSING);
        }
        self.optional_text(member, at)
    }

    fn signed_text<'a>(&mut self, member: Member<Source<'a>>, at: At) -> Option<Text<'a>> {
        if let Member::Absent = member {
            self.missing.push(at);
        }
        self.optional_text(member, at)
    }
}

/// A currency of `included`.
struct Currency<'a> {
    id: Cow<'a, str>,
    index: usize,
    says_exp: bool,
    exp: Option<u32>,
}
