//! What the pages look like: pure functions from the services' answers to HTML.
//!
//! Marks that tests of other meshes grep for are kept in both their old and new forms: `font`
//! colours and `glyphicon` spans, and `text-<color>-500` boxes with `svg` stars.

use std::fmt::Write as _;

use hyper::StatusCode;
use serde_json::{Value, json};

/// The style sheet, served at `/static/bookinfo.css`.
pub const STYLE: &str = include_str!("../static/bookinfo.css");

/// The icon, served at `/static/favicon.svg`.
pub const ICON: &str = include_str!("../static/favicon.svg");

const TITLE: &str = "The Comedy of Errors";
const SUMMARY: &str = "<a href=\"https://en.wikipedia.org/wiki/The_Comedy_of_Errors\">Wikipedia \
    Summary</a>: an early and short comedy by William Shakespeare, in which two pairs of identical \
    twins, parted as infants, meet unknowing in one town, and everyone takes each for the other.";

/// The one-element product list of the API.
pub fn products() -> Value {
    json!([{"id": 0, "title": TITLE, "descriptionHtml": SUMMARY}])
}

/// What a person reads when a service cannot be had.
pub fn unavailable(service: &str) -> String {
    format!("Sorry, product {service} are currently unavailable for this book.")
}

/// The front page: who is called, and two ways in.
pub fn index(services: &[(&str, &str)]) -> String {
    let mut rows = String::new();
    for (name, url) in services {
        // Writing to a String does not fail.
        let _ = write!(
            rows,
            "<tr><th>{}</th><td>{}</td></tr>",
            escape(name),
            escape(url)
        );
    }
    frame(&format!(
        "<main><h1>Hello! This is a simple bookstore application</h1>\
         <p>It is made of these services:</p>\
         <table><tr><th>productpage</th><td>this page</td></tr>{rows}</table>\
         <p>Open the product page as a:</p>\
         <p><a href=\"/productpage?u=normal\">Normal user</a></p>\
         <p><a href=\"/productpage?u=test\">Test user</a></p></main>"
    ))
}

/// The product page, from what details and reviews answered.
pub fn product(
    user: Option<&str>,
    details: &Result<Value, StatusCode>,
    reviews: &Result<Value, StatusCode>,
) -> String {
    frame(&format!(
        "{}<main><h1>{TITLE}</h1><p class=\"summary\">Summary: {SUMMARY}</p>\
         <div class=\"columns\"><section>{}</section><section>{}</section></div></main>",
        header(user),
        details_part(details),
        reviews_part(reviews),
    ))
}

fn frame(inner: &str) -> String {
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Simple Bookstore App</title>\
         <link rel=\"icon\" href=\"/static/favicon.svg\">\
         <link rel=\"stylesheet\" href=\"/static/bookinfo.css\"></head>\
         <body>{inner}</body></html>\n"
    )
}

fn header(user: Option<&str>) -> String {
    let right = match user {
        Some(user) => format!(
            "<span class=\"user\">{} (<a href=\"/logout\"> sign out </a>)</span>",
            escape(user)
        ),
        None => "<details class=\"login\"><summary>Sign in</summary>\
             <form method=\"post\" action=\"/login\">\
             <label>User Name <input name=\"username\" autocomplete=\"username\"></label>\
             <label>Password <input name=\"passwd\" type=\"password\"></label>\
             <button type=\"submit\">Sign in</button></form></details>"
            .to_owned(),
    };
    format!("<header><a class=\"brand\" href=\"/\">BookInfo Sample</a>{right}</header>")
}

fn details_part(details: &Result<Value, StatusCode>) -> String {
    let book = match details {
        Ok(book) if book.get("error").is_none() => book,
        _ => return failed("details"),
    };
    let mut rows = String::new();
    for (label, key) in [
        ("Type", "type"),
        ("Pages", "pages"),
        ("Publisher", "publisher"),
        ("Language", "language"),
        ("ISBN-10", "ISBN-10"),
        ("ISBN-13", "ISBN-13"),
    ] {
        let value = book.get(key).map(plain).unwrap_or_default();
        let _ = write!(rows, "<dt>{label}:</dt><dd>{}</dd>", escape(&value));
    }
    format!("<h2>Book Details</h2><dl>{rows}</dl>")
}

fn reviews_part(reviews: &Result<Value, StatusCode>) -> String {
    let (document, list) = match reviews {
        Ok(document) => match document.get("reviews").and_then(Value::as_array) {
            Some(list) => (document, list),
            None => return failed("reviews"),
        },
        Err(_) => return failed("reviews"),
    };
    let mut out = String::from("<h2>Book Reviews</h2>");
    for review in list {
        let text = review.get("text").map(plain).unwrap_or_default();
        let reviewer = review.get("reviewer").map(plain).unwrap_or_default();
        let _ = write!(
            out,
            "<blockquote><p>{}</p><small>{}</small>{}</blockquote>",
            escape(&text),
            escape(&reviewer),
            review.get("rating").map(stars).unwrap_or_default(),
        );
    }
    let pod = document.get("podname").map(plain).unwrap_or_default();
    let _ = write!(
        out,
        "<dl><dt>Reviews served by:</dt><dd><u>{}</u>",
        escape(&pod)
    );
    match document.get("clustername").map(plain) {
        Some(cluster) if cluster != "null" => {
            let _ = write!(out, " on cluster <u>{}</u>", escape(&cluster));
        }
        _ => {}
    }
    out.push_str("</dd></dl>");
    out
}

/// Five stars, `stars` of them full, or the reason there are none.
fn stars(rating: &Value) -> String {
    let Some(count) = rating.get("stars").and_then(Value::as_i64) else {
        let error = rating.get("error").map(plain).unwrap_or_default();
        return format!("<p class=\"error\"><i>{}</i></p>", escape(&error));
    };
    let color = match rating.get("color").and_then(Value::as_str) {
        Some("red") => "red",
        _ => "black",
    };
    let mut marks = String::new();
    for place in 1..=5 {
        let name = if place <= count {
            "glyphicon-star"
        } else {
            "glyphicon-star-empty"
        };
        let sign = if place <= count {
            "\u{2605}"
        } else {
            "\u{2606}"
        };
        let _ = write!(
            marks,
            "<span class=\"glyphicon {name}\"><svg id=\"glyphicon {name}\" width=\"20\" \
             height=\"20\" viewBox=\"0 0 20 20\"><text x=\"1\" y=\"17\" font-size=\"19\" \
             fill=\"currentColor\">{sign}</text></svg></span>"
        );
    }
    format!("<div class=\"stars text-{color}-500\"><font color=\"{color}\">{marks}</font></div>")
}

fn failed(service: &str) -> String {
    format!(
        "<div class=\"failed\"><h2>Error fetching product {service}!</h2><p>{}</p></div>",
        unavailable(service)
    )
}

/// A JSON scalar as a person writes it.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reviews_with(rating: Option<Value>) -> Result<Value, StatusCode> {
        let mut review = json!({"reviewer": "Reviewer1", "text": "Fine."});
        if let Some(rating) = rating {
            review["rating"] = rating;
        }
        Ok(json!({"podname": "p-1", "clustername": "null", "reviews": [review]}))
    }

    #[test]
    fn stars_come_in_no_black_and_red() {
        let none = product(None, &Err(StatusCode::BAD_GATEWAY), &reviews_with(None));
        assert!(!none.contains("glyphicon"));
        let rating = json!({"stars": 4, "color": "red"});
        let red = product(
            None,
            &Err(StatusCode::BAD_GATEWAY),
            &reviews_with(Some(rating)),
        );
        assert!(red.contains("<font color=\"red\">") && red.contains("text-red-500"));
        assert_eq!(red.matches("class=\"glyphicon glyphicon-star\"").count(), 4);
        assert_eq!(
            red.matches("class=\"glyphicon glyphicon-star-empty\"")
                .count(),
            1
        );
    }

    #[test]
    fn what_failed_is_said_on_the_page() {
        let page = product(None, &Err(StatusCode::OK), &Err(StatusCode::OK));
        for text in [
            "Error fetching product details!",
            "Sorry, product details are currently unavailable for this book.",
            "Error fetching product reviews!",
            "Sorry, product reviews are currently unavailable for this book.",
            "<title>Simple Bookstore App</title>",
        ] {
            assert!(page.contains(text), "{text}");
        }
    }

    #[test]
    fn names_from_outside_are_escaped() {
        let page = product(Some("<script>"), &Err(StatusCode::OK), &reviews_with(None));
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
    }
}
