//! URI path templates: `{*}` or `*` for one segment, `{**}` or `**` for the rest, `{name}` and
//! `{name=pattern}` for named parts, of which rewrites make new paths.
use std::ops::Range;
use std::sync::Arc;

use crate::config::Name;

/// A compiled template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UriTemplate {
    source: Name,
    segments: Vec<Segment>,
    suffix: Name,
    /// The named parts and the segments they stand for.
    variables: Vec<(Name, Range<usize>)>,
}

/// A path made of the named parts of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateRewrite {
    template: Arc<UriTemplate>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Name),
    /// The number of a variable.
    Variable(usize),
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
        let (flat, variables) = flatten(body)?;
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
            variables,
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
        self.parts(path).is_some()
    }

    /// The path's segments, without the suffix, where it matches.
    fn parts<'p>(&self, path: &'p [u8]) -> Option<Parts<'p>> {
        let body = path.strip_prefix(b"/")?;
        let body = body.strip_suffix(self.suffix.as_bytes())?;
        let parts: Parts<'p> = body.split(|b| *b == b'/').collect();
        let fits = |segs: &[Segment], parts: &[&[u8]]| {
            segs.len() == parts.len()
                && segs.iter().zip(parts).all(|(s, p)| match s {
                    Segment::Literal(l) => l.as_bytes() == *p,
                    Segment::One | Segment::Rest => !p.is_empty() && of_path(p),
                })
        };
        let all = match self.rest() {
            None => fits(&self.segments, &parts),
            Some(at) => {
                let after = self.segments.len() - at - 1;
                parts.len() > at + after
                    && parts[at..parts.len() - after].iter().all(|p| of_path(p))
                    && fits(&self.segments[..at], &parts[..at])
                    && fits(&self.segments[at + 1..], &parts[parts.len() - after..])
            }
        };
        all.then_some(parts)
    }

    fn rest(&self) -> Option<usize> {
        self.segments.iter().position(|s| *s == Segment::Rest)
    }

    /// What a variable stands for in a path with these parts: them and the slashes between.
    fn value(&self, variable: usize, parts: &[&[u8]]) -> Vec<u8> {
        let segments = &self.variables[variable].1;
        // Behind `**` segments are counted from the end.
        let rest = self.rest().unwrap_or(usize::MAX);
        let more = parts.len() - self.segments.len().min(parts.len());
        let place = |segment: usize| segment + if segment > rest { more } else { 0 };
        let range = place(segments.start)..place(segments.end);
        parts.get(range).unwrap_or_default().join(&b'/')
    }
}

impl TemplateRewrite {
    /// Compiles a rewrite of the paths that a template matches.
    ///
    /// # Errors
    /// A text saying what is wrong.
    pub fn parse(text: &str, template: Arc<UriTemplate>) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err("a path starts with `/`".into());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            if at > 0 {
                parts.push(Part::Literal(literal(&rest[..at])?));
            }
            let name = rest[at..].strip_prefix('{').ok_or("`}` without `{`")?;
            let (name, after) = name.split_once('}').ok_or("`{` without `}`")?;
            let variable = template.variables.iter().position(|(n, _)| **n == *name);
            let variable =
                variable.ok_or_else(|| format!("`{{{name}}}` is no variable of the path match"))?;
            parts.push(Part::Variable(variable));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(literal(rest)?));
        }
        Ok(Self { template, parts })
    }

    /// The new path of a path without query; none where the template does not match it.
    #[must_use]
    pub fn path(&self, path: &[u8]) -> Option<Vec<u8>> {
        let parts = self.template.parts(path)?;
        let mut new = Vec::with_capacity(path.len());
        for part in &self.parts {
            match part {
                Part::Literal(text) => new.extend_from_slice(text.as_bytes()),
                Part::Variable(number) => {
                    new.extend_from_slice(&self.template.value(*number, &parts));
                }
            }
        }
        Some(new)
    }
}

type Parts<'p> = smallvec::SmallVec<[&'p [u8]; 16]>;

/// Characters of a path (RFC 3986 section 3.3): nothing else is matched.
fn of_path(text: &[u8]) -> bool {
    let fits = |b: &u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;:@=".contains(b);
    text.iter().all(fits)
}

/// Text of a rewrite; `*` means something else in templates.
fn literal(text: &str) -> Result<Name, String> {
    match of_path(text.as_bytes()) && !text.contains('*') {
        true => Ok(text.into()),
        false => Err(format!("`{text}` holds what no path does")),
    }
}

type Variables = Vec<(Name, Range<usize>)>;

/// Takes the braces away: `{*}`, `{**}`, `{name}` (= `*`), `{name=a/*}`; and says which segments
/// the names stand for.
fn flatten(body: &str) -> Result<(String, Variables), String> {
    let mut out = String::new();
    let mut variables = Variables::new();
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
        let (name, pattern) = match inner.split_once('=') {
            Some((name, pattern)) => (name, pattern),
            None if inner == "*" || inner == "**" => ("", inner),
            None => (inner, "*"),
        };
        rest = &rest[end + 1..];
        if inner.is_empty() || (name.is_empty() && inner.contains('=')) {
            return Err("a variable without name".into());
        }
        if !name.is_empty() {
            let first = out.matches('/').count();
            let last = first + pattern.matches('/').count();
            let whole = out.is_empty() || out.ends_with('/');
            if !whole || pattern.is_empty() || rest.contains('/') && !rest.starts_with('/') {
                return Err(format!("`{name}`: a variable stands for whole segments"));
            }
            if variables.iter().any(|(other, _)| **other == *name) {
                return Err(format!("two variables are named `{name}`"));
            }
            variables.push((name.into(), first..last + 1));
        }
        out.push_str(pattern);
    }
    out.push_str(rest);
    Ok((out, variables))
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
            ("/store/{*}.jpg", "/store/a|.jpg", false),
            ("/foo/{*}", "/foo/a*b", true),
            ("/foo/{*}", "/foo/\u{e9}", false),
            ("/foo/{**}", "/foo/a/\\", false),
            ("/foo/{**}/end", "/foo/{/end", false),
        ] {
            let t = UriTemplate::parse(template).unwrap();
            assert_eq!(t.matches(path.as_bytes()), want, "{template} {path}");
        }
        let rewritten = |template: &str, rewrite: &str, path: &str| {
            let template = Arc::new(UriTemplate::parse(template).unwrap());
            let rewrite = TemplateRewrite::parse(rewrite, template)?;
            let path = rewrite.path(path.as_bytes());
            Ok(path.map(|p| String::from_utf8(p).unwrap()))
        };
        for (template, rewrite, path, want) in [
            ("/{one}/{two}", "/{two}/{one}", "/cat/dog", "/dog/cat"),
            ("/v/{l=lang/*}/*", "/{l}", "/v/lang/en/x.m4s", "/lang/en"),
            ("/{a}/{b}.vtt", "/{b}-{a}.vtt", "/x/y.vtt", "/y-x.vtt"),
            ("/{a=**}/end", "/x/{a}", "/1/2/3/end", "/x/1/2/3"),
            ("/{a=**}/{b=end}", "/{b}/{a}", "/1/2/end", "/end/1/2"),
            ("/a/{b}/{c=**}", "/{c}/{b}", "/a/1/", "//1"),
            ("/{a}", "/x", "/1", "/x"),
        ] {
            let got = rewritten(template, rewrite, path);
            assert_eq!(got, Ok(Some(want.to_owned())), "{template} {rewrite}");
        }
        assert_eq!(rewritten("/{a}", "/{a}", "/1/2"), Ok(None));
        for bad in ["{a}", "/{b}", "/{a", "/a}", "/a b", "/\u{e4}", "/?x"] {
            let refused: Result<_, String> = rewritten("/{a}", bad, "/1");
            assert!(refused.is_err(), "{bad}");
        }
        for bad in [
            "foo",
            "/{=a}",
            "/{a}/{a}",
            "/{a=}",
            "/x{a=b}",
            "/{a=b}c/d",
            "/{",
            "/}",
            "/a*b/c",
            "/**/a/**",
            "/{**}/{*}",
        ] {
            assert!(UriTemplate::parse(bad).is_err(), "{bad}");
        }
    }
}
