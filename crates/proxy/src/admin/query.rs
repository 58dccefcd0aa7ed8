//! A request target taken apart: path and decoded query parameters.

/// A target such as `/stats?filter=a%2Eb&usedonly`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads the part behind `?`.
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self {
            pairs: pairs.collect(),
        }
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a parameter is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All parameters in their order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }
}

/// Percent-decodes; a broken escape stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        // `from_str_radix` alone would take `%+5`.
        let digits = |h: &&[u8]| h.iter().all(u8::is_ascii_hexdigit);
        let hex = tail.get(..2).filter(digits);
        let hex = hex.and_then(|h| std::str::from_utf8(h).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::Query;

    #[test]
    fn parameters_are_decoded_and_flags_need_no_value() {
        let query = Query::parse("filter=a%2Eb%&usedonly&format=json");
        assert_eq!(query.get("filter"), Some("a.b%"));
        assert!(query.has("usedonly") && !query.has("type"));
        assert_eq!(query.pairs().len(), 3);
        assert_eq!(Query::parse("a=%+5%-1").get("a"), Some("% 5%-1"));
    }
}
