//! The page.

use std::fmt::Write;

use super::Report;

/// The HTML document.
pub(super) fn page(report: &Report) -> String {
    let mut html =
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>upright report</title>\n<ul>\n"
            .to_owned();
    for arm in &report.arms {
        let _ = writeln!(html, "<li>{}: {} runs</li>", escaped(&arm.label), arm.runs.len());
    }
    html + "</ul>\n</html>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
