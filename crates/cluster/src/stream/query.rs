//! Query strings of the streaming subresources. Pure.

use crate::api::ApiError;
use crate::node::runtime::LogOptions;

/// The decoded name/value pairs of a query string, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes `a=b&c=d` (`+` and `%XX`); bytes that are no UTF-8 become replacement characters.
    pub fn parse(query: &str) -> Self {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        };
        Self(
            query
                .split('&')
                .filter(|part| !part.is_empty())
                .map(pair)
                .collect(),
        )
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of a name.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// A boolean as clients send it: `true` or `1`; absent is false.
    pub fn flag(&self, name: &str) -> bool {
        matches!(
            self.get(name),
            Some("true" | "True" | "TRUE" | "1" | "t" | "T")
        )
    }

    fn number(&self, name: &str, least: u64) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.get(name).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if number >= least => Ok(Some(number)),
            _ => Err(ApiError::bad_request(format!(
                "{name}: Invalid value: {text:?}: must be an integer not less than {least}"
            ))),
        }
    }

    /// The options of `pods/log`.
    ///
    /// # Errors
    /// 400 for a malformed number or time, or both ways of saying since when.
    pub fn log_options(&self) -> Result<LogOptions, ApiError> {
        let since_time = match self.get("sinceTime").filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| {
                ApiError::bad_request(format!("sinceTime: Invalid value: {text:?}: not RFC 3339"))
            })?),
        };
        let since_seconds = self.number("sinceSeconds", 1)?;
        if since_time.is_some() && since_seconds.is_some() {
            return Err(ApiError::bad_request(
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        Ok(LogOptions {
            follow: self.flag("follow"),
            tail_lines: self.number("tailLines", 0)?,
            since_seconds,
            since_time,
            timestamps: self.flag("timestamps"),
            previous: self.flag("previous"),
            limit_bytes: self.number("limitBytes", 1)?,
        })
    }

    /// The ports of a port-forward by channels: `ports=80,443` or repeated.
    ///
    /// # Errors
    /// 400 for none, too many or a malformed one.
    pub fn ports(&self) -> Result<Vec<u16>, ApiError> {
        let values = self.all("ports");
        let ports: Result<Vec<u16>, _> = values
            .iter()
            .flat_map(|value| value.split(','))
            .map(|port| port.parse::<u16>().ok().filter(|p| *p > 0).ok_or(port))
            .collect();
        match ports {
            Ok(ports) if (1..=127).contains(&ports.len()) => Ok(ports),
            Ok(_) => Err(ApiError::bad_request(
                "1 to 127 ports must be given in `ports`",
            )),
            Err(bad) => Err(ApiError::bad_request(format!(
                "{bad:?} is not a valid port"
            ))),
        }
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        let escaped = (first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, escaped) {
            (_, Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', None) => bytes.push(b' '),
            (other, None) => bytes.push(other),
        }
    }
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_keep_their_order_and_escapes() {
        let query = Query::parse("command=sh&command=-c&command=a%20b%2B%26+c&stdin=true&tty=1");
        assert_eq!(query.all("command"), ["sh", "-c", "a b+& c"]);
        assert!(query.flag("stdin") && query.flag("tty") && !query.flag("stderr"));
        assert_eq!(Query::parse("a=%zz%4").get("a"), Some("%zz%4"));
        assert_eq!(Query::parse("a=%ff").get("a"), Some("\u{fffd}"));
        assert_eq!(Query::parse("").get("a"), None);
    }

    #[test]
    fn log_options_are_checked() {
        let options = |query: &str| Query::parse(query).log_options();
        let good = options("follow=true&tailLines=0&sinceTime=2026-01-01T00:00:00Z").expect("good");
        assert!(good.follow && good.tail_lines == Some(0) && good.since_time.is_some());
        for bad in [
            "tailLines=-1",
            "sinceTime=now",
            "limitBytes=0",
            "sinceSeconds=x",
        ] {
            assert_eq!(options(bad).expect_err(bad).code, 400);
        }
        assert!(options("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z").is_err());
    }

    #[test]
    fn ports_are_checked() {
        let ports = |query: &str| Query::parse(query).ports();
        assert_eq!(ports("ports=80,443&ports=1").expect("good"), [80, 443, 1]);
        for bad in ["", "ports=", "ports=0", "ports=70000", "ports=80,x"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}
