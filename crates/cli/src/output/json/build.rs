//! From any serialisable value to [`Json`], keeping note of the fields that JSON leaves out.
//!
//! Docker's templates see Go's structures: `{{if .State.Health}}` is false where a container has no
//! health check, though its JSON has no such field. A way through text would lose the field's name.

use serde::ser::{
    Error as _, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant,
};
use serde::{Serialize, Serializer};
use serde_json::Error;

use super::{Json, Zero};

/// Makes a [`Json`].
pub(super) struct Builder;

/// The elements of a list so far, and the name that an enum's variant wraps around them.
pub(super) struct Items(Vec<Json>, Option<&'static str>);

/// The fields of a map so far.
pub(super) struct Fields {
    fields: Vec<(String, Json)>,
    key: String,
    variant: Option<&'static str>,
}

fn wrap(variant: Option<&'static str>, value: Json) -> Json {
    match variant {
        Some(name) => Json::Map(vec![(name.to_owned(), value)]),
        None => value,
    }
}

impl Fields {
    fn new(variant: Option<&'static str>) -> Self {
        Self { fields: Vec::new(), key: String::new(), variant }
    }

    fn add<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Error> {
        self.fields.push((name.to_owned(), value.serialize(Builder)?));
        Ok(())
    }

    fn skip(&mut self, name: &str) {
        self.fields.push((name.to_owned(), Json::Absent(zero(name))));
    }

    fn finish(self) -> Json {
        wrap(self.variant, Json::Map(self.fields))
    }
}

/// What Go's field of this name holds when nothing was put there, by its type in Docker's API.
fn zero(name: &str) -> Zero {
    match name {
        "Consistency" | "DockerVersion" | "Driver" | "MacAddress" | "Name" | "Os" | "OsVersion"
        | "Propagation" | "Source" | "StopSignal" | "Subpath" | "Variant" => Zero::Text,
        "ArgsEscaped" | "CreateMountpoint" | "Experimental" | "NetworkDisabled" | "NoCopy"
        | "NonRecursive" | "ReadOnly" => Zero::Flag,
        "Annotations" | "ExposedPorts" | "Labels" | "StorageOpt" | "Sysctls" | "Tmpfs" => Zero::Map,
        "CapAdd" | "Layers" | "MaskedPaths" | "Mounts" | "OnBuild" | "Shell" | "Test" => Zero::List,
        _ => Zero::Nil,
    }
}

impl Serializer for Builder {
    type Ok = Json;
    type Error = Error;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Items;
    type SerializeTupleVariant = Items;
    type SerializeMap = Fields;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Fields;

    fn serialize_bool(self, v: bool) -> Result<Json, Error> {
        Ok(Json::Bool(v))
    }

    fn serialize_i8(self, v: i8) -> Result<Json, Error> {
        Ok(Json::Int(v.into()))
    }

    fn serialize_i16(self, v: i16) -> Result<Json, Error> {
        Ok(Json::Int(v.into()))
    }

    fn serialize_i32(self, v: i32) -> Result<Json, Error> {
        Ok(Json::Int(v.into()))
    }

    fn serialize_i64(self, v: i64) -> Result<Json, Error> {
        Ok(Json::Int(v))
    }

    fn serialize_u8(self, v: u8) -> Result<Json, Error> {
        Ok(Json::Int(v.into()))
    }

    fn serialize_u16(self, v: u16) -> Result<Json, Error> {
        Ok(Json::Int(v.into()))
    }

    fn serialize_u32(self, v: u32) -> Result<Json, Error> {
        Ok(Json::Int(v.into()))
    }

    fn serialize_u64(self, v: u64) -> Result<Json, Error> {
        Ok(i64::try_from(v).map_or(Json::Uint(v), Json::Int))
    }

    fn serialize_f32(self, v: f32) -> Result<Json, Error> {
        self.serialize_f64(v.into())
    }

    fn serialize_f64(self, v: f64) -> Result<Json, Error> {
        // JSON has no other numbers.
        Ok(if v.is_finite() { Json::Float(v) } else { Json::Null })
    }

    fn serialize_char(self, v: char) -> Result<Json, Error> {
        Ok(Json::Text(v.into()))
    }

    fn serialize_str(self, v: &str) -> Result<Json, Error> {
        Ok(Json::Text(v.to_owned()))
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<Json, Error> {
        Ok(Json::List(v.iter().map(|byte| Json::Int((*byte).into())).collect()))
    }

    fn serialize_none(self) -> Result<Json, Error> {
        Ok(Json::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Json, Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Json, Error> {
        Ok(Json::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Json, Error> {
        Ok(Json::Null)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Json, Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Json, Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Json, Error> {
        Ok(wrap(Some(variant), value.serialize(self)?))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items, Error> {
        Ok(Items(Vec::new(), None))
    }

    fn serialize_tuple(self, _: usize) -> Result<Items, Error> {
        Ok(Items(Vec::new(), None))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Items, Error> {
        Ok(Items(Vec::new(), None))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Items, Error> {
        Ok(Items(Vec::new(), Some(variant)))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Fields, Error> {
        Ok(Fields::new(None))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields, Error> {
        Ok(Fields::new(None))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Fields, Error> {
        Ok(Fields::new(Some(variant)))
    }
}

/// Lists of all kinds take their elements in the same way.
macro_rules! list {
    ($($kind:ident $element:ident),*) => {$(
        impl $kind for Items {
            type Ok = Json;
            type Error = Error;

            fn $element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.0.push(value.serialize(Builder)?);
                Ok(())
            }

            fn end(self) -> Result<Json, Error> {
                Ok(wrap(self.1, Json::List(self.0)))
            }
        }
    )*};
}

list!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);

/// And structures their fields.
macro_rules! structure {
    ($($kind:ident),*) => {$(
        impl $kind for Fields {
            type Ok = Json;
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                self.add(name, value)
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), Error> {
                self.skip(name);
                Ok(())
            }

            fn end(self) -> Result<Json, Error> {
                Ok(self.finish())
            }
        }
    )*};
}

structure!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for Fields {
    type Ok = Json;
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.key = match key.serialize(Builder)? {
            Json::Text(text) => text,
            Json::Int(number) => number.to_string(),
            Json::Uint(number) => number.to_string(),
            Json::Bool(flag) => flag.to_string(),
            other => return Err(Error::custom(format!("{other:?} cannot be a key"))),
        };
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        let key = std::mem::take(&mut self.key);
        self.add(&key, value)
    }

    fn end(self) -> Result<Json, Error> {
        Ok(self.finish())
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::super::Json;

    #[derive(Serialize)]
    struct Part {
        #[serde(rename = "Health", skip_serializing_if = "Option::is_none")]
        health: Option<u8>,
        #[serde(flatten)]
        rest: std::collections::BTreeMap<u8, (bool, f64)>,
        kind: Kind,
    }

    #[derive(Serialize)]
    enum Kind {
        Unit,
        New(String),
        Two(u8, i8),
        Named { a: char },
    }

    #[test]
    fn builds_what_the_text_says() {
        let kinds = [Kind::Unit, Kind::New("n".into()), Kind::Two(1, -1), Kind::Named { a: 'x' }];
        for (health, kind) in [None, Some(1), None, Some(2)].into_iter().zip(kinds) {
            let part = Part { health, rest: [(7, (true, 0.5))].into(), kind };
            let json = Json::of(&part).unwrap();
            assert_eq!(
                serde_json::to_string(&json).unwrap(),
                serde_json::to_string(&part).unwrap()
            );
        }
    }
}
