//! Which members of a callback are read, and where they stand.
//!
//! These are the paths on which a repeated key is an error; anywhere else keys may repeat and values may be anything.
//! `data.relationships` is not among them: a callback without a transfer names one there all the same.

use std::borrow::Cow;

use super::{
    json::{Array, Elements, Member, Object, Source, object},
    violation::{MISSING, REPEATED, Violations, text},
};

object! {
    /// The whole.
    Body<'de> {
        data as "data": Object<Data<'de>>,
        included as "included": Array<Included<'de>>,
        meta as "meta": Object<Meta<'de>>,
    }
}

object! {
    /// The deposit or payout.
    Data<'de> {
        kind as "type": Source<'de>,
        id as "id": Source<'de>,
        attributes as "attributes": Object<DataAttributes<'de>>,
    }
}

object! {
    /// `data.attributes`
    DataAttributes<'de> {
        tracking_id as "tracking_id": Source<'de>,
    }
}

object! {
    /// When it was signed, and the sign.
    Meta<'de> {
        time as "time": Source<'de>,
        sign as "sign": Source<'de>,
    }
}

object! {
    /// An element of `included`. Which members count depends on its type, which may come last.
    Resource<'de> {
        kind as "type": Source<'de>,
        id as "id": Source<'de>,
        attributes as "attributes": Object<ResourceAttributes<'de>>,
        relationships as "relationships": Object<Relationships<'de>>,
    }
}

object! {
    /// The attributes of a transfer and of a currency.
    ResourceAttributes<'de> {
        status as "status": Source<'de>,
        amount as "amount": Source<'de>,
        exp as "exp": Source<'de>,
    }
}

object! {
    /// The relationships of a transfer.
    Relationships<'de> {
        currency as "currency": Object<Relationship<'de>>,
    }
}

object! {
    /// A relationship to one resource.
    Relationship<'de> {
        data as "data": Object<Linkage<'de>>,
    }
}

object! {
    /// What names a resource.
    Linkage<'de> {
        kind as "type": Source<'de>,
        id as "id": Source<'de>,
    }
}

/// What is kept of `included`: everything else is let go while it is read, so that a long array costs little.
#[derive(Default)]
pub(super) struct Included<'de> {
    /// The first transfer and where it stands.
    pub(super) transfer: Option<(usize, Resource<'de>)>,
    /// The currencies and where they stand.
    pub(super) currencies: Vec<(usize, Resource<'de>)>,
    /// What is wrong with the array as such.
    pub(super) violations: Violations,
}

impl<'de> Elements<'de> for Included<'de> {
    type Element = Object<Resource<'de>>;

    fn take(&mut self, index: usize, element: Object<Resource<'de>>) {
        let resource = match element {
            Object::Is(resource) => resource,
            Object::IsNot(sort) => {
                let wrong = format_args!("must be an object, is {sort}");
                return self.violations.add(format_args!("included[{index}]"), wrong);
            }
        };
        let wrong = match &resource.kind {
            Member::Absent | Member::OutOfReach => Cow::Borrowed(MISSING),
            Member::Repeated => Cow::Borrowed(REPEATED),
            Member::Once(kind) => match text(kind).as_ref().map(|kind| &*kind.decoded) {
                Ok("transfer") => return self.take_transfer(index, resource),
                Ok("currency") => return self.currencies.push((index, resource)),
                Ok(_) => return,
                Err(wrong) => Cow::Owned(wrong.clone()),
            },
        };
        self.violations.add(format_args!("included[{index}].type"), wrong);
    }
}

impl<'de> Included<'de> {
    fn take_transfer(&mut self, index: usize, transfer: Resource<'de>) {
        if let Some((first, _)) = &self.transfer {
            let wrong =
                format_args!("is a second transfer, the first is included[{first}]: the sign covers one");
            self.violations.add(format_args!("included[{index}]"), wrong);
        } else {
            self.transfer = Some((index, transfer));
        }
    }
}
