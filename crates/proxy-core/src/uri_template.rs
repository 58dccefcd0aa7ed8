//! URI path templates: `{*}` or `*` for one segment, `{**}` or `**` for the rest, `{name}` and
//! `{name=pattern}` for named parts.
use crate::config::Name;

/// A compiled template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UriTemplate {
    source: Name,
    segments: Vec<Segment>,
    suffix: Name,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Name),
    One,
    Rest,
}

impl UriTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// A text saying what is wrong.
    pub fn parse(source: &str) -> Result<Self, String> {
        let body = source
            .strip_prefix('/')
            .ok_or("a path template starts with `/`")?;
        let flat = flatten(body)?;
        let mut segments = Vec::new();
        let mut suffix = Name::default();
        let parts: Vec<&str> = flat.split('/').collect();
        for (i, part) in parts.iter().enumerate() {
            let last = i + 1 == parts.len();
            match *part {
                "*" => segments.push(Segment::One),
                "**" if segments.contains(&Segment::Rest) => {
                    return Err("`**` stands at most once".into());
                }
                "**" => segments.push(Segment::Rest),
                p if p.starts_with("**") && last => {
                    segments.push(Segment::Rest);
                    suffix = p[2..].into();
                }
                p if p.starts_with('*') && last => {
                    segments.push(Segment::One);
                    suffix = p[1..].into();
                }
                p if p.contains('*') => {
                    return Err(format!("`{p}`: `*` stands alone in its segment"));
                }
                p => segments.push(Segment::Literal(p.into())),
            }
        }
        if let Some(at) = segments.iter().position(|s| *s == Segment::Rest)
            && segments[at + 1..].contains(&Segment::One)
        {
            return Err("no operator may follow `**`".into());
        }
        Ok(Self {
            source: source.into(),
            segments,
            suffix,
        })
    }

    /// The template as written.
    #[must_use]
    pub fn source(&self) -> &Name {
        &self.source
    }

    /// Whether a path (without query) matches.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        let Some(body) = path.strip_prefix(b"/") else {
            return false;
        };
        let Some(body) = body.strip_suffix(self.suffix.as_bytes()) else {
            return false;
        };
        let parts: smallvec::SmallVec<[&[u8]; 16]> = body.split(|b| *b == b'/').collect();
        let fits = |segs: &[Segment], parts: &[&[u8]]| {
            segs.len() == parts.len()
                && segs.iter().zip(parts).all(|(s, p)| match s {
                    Segment::Literal(l) => l.as_bytes() == *p,
                    Segment::One | Segment::Rest => !p.is_empty(),
                })
        };
        match self.segments.iter().position(|s| *s == Segment::Rest) {
            None => fits(&self.segments, &parts),
            Some(at) => {
                let after = self.segments.len() - at - 1;
                parts.len() > at + after
                    && fits(&self.segments[..at], &parts[..at])
                    && fits(&self.segments[at + 1..], &parts[parts.len() - after..])
            }
        }
    }
}

/// Takes the braces away: `{*}`, `{**}`, `{name}` (= `*`), `{name=a/*}`.
fn flatten(body: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = body;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        if rest.as_bytes()[at] == b'}' {
            return Err("`}` without `{`".into());
        }
        let end = rest[at..].find('}').ok_or("`{` without `}`")? + at;
        let inner = &rest[at + 1..end];
        if inner.contains('{') {
            return Err("a variable inside a variable".into());
        }
        match inner.split_once('=') {
            Some((_, pattern)) => out.push_str(pattern),
            None if inner == "*" || inner == "**" => out.push_str(inner),
            None if inner.is_empty() => return Err("a variable without name".into()),
            None => out.push('*'),
        }
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (template, path, want) in [
            ("/foo/{*}", "/foo/bar", true),
            ("/foo/{*}", "/foo/", false),
            ("/foo/{*}", "/foo/bar/x", false),
            ("/foo/{**}", "/foo/bar/x", true),
            ("/foo/{**}", "/foo/", true),
            ("/{*}/baz/{**}", "/a/baz/b/c", true),
            ("/foo/{**}/end", "/foo/a/b/end", true),
            ("/foo/{**}/end", "/foo/a/b/nd", false),
            ("/v1/{name=shelves/*}", "/v1/shelves/3", true),
            ("/v1/{id}", "/v1/3", true),
            ("/store/{*}.jpg", "/store/a.jpg", true),
        ] {
            let t = UriTemplate::parse(template).unwrap();
            assert_eq!(t.matches(path.as_bytes()), want, "{template} {path}");
        }
        for bad in ["foo", "/{", "/}", "/a*b/c", "/**/a/**", "/{**}/{*}"] {
            assert!(UriTemplate::parse(bad).is_err(), "{bad}");
        }
    }
}
