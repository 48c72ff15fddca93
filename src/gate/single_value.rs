//! Header fields with a single value.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A field has more than one value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeated;

/// The only value of a field; `None` if the field is absent.
pub(super) fn single_value<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, Repeated> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    match values.next() {
        Some(_) => Err(Repeated),
        None => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use http::header::ORIGIN;

    use super::*;

    #[test]
    fn tells_one_value_from_none_and_several() {
        let mut headers = HeaderMap::new();
        assert_eq!(single_value(&headers, &ORIGIN), Ok(None));
        let value = HeaderValue::from_static("https://app.example");
        headers.append(ORIGIN, value.clone());
        assert_eq!(single_value(&headers, &ORIGIN), Ok(Some(&value)));
        headers.append(ORIGIN, value);
        assert_eq!(single_value(&headers, &ORIGIN), Err(Repeated));
    }
}
