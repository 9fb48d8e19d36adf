//! Mistakes in a file, shown with the line and a caret.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use isokiln_core::diagnostic::Diagnostics;

/// All mistakes of one file.
pub(crate) fn render(path: &str, text: &str, diagnostics: &Diagnostics) -> String {
    let renderer = if console::colors_enabled_stderr() { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    let mut out = String::new();
    for diagnostic in &diagnostics.0 {
        let end = diagnostic.span.end.min(text.len());
        let start = diagnostic.span.start.min(end);
        // A table spans many lines; pointing at its first one is enough.
        let end = text[start..end].find('\n').map_or(end, |newline| start + newline);
        let annotation = AnnotationKind::Primary.span(start..end);
        let annotation =
            if diagnostic.label.is_empty() { annotation } else { annotation.label(&*diagnostic.label) };
        let snippet = Snippet::source(text).path(path).annotation(annotation);
        let mut group = Level::ERROR.primary_title(&*diagnostic.message).element(snippet);
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(&**help));
        }
        out.push_str(&renderer.render(&[group]));
        out.push_str("\n\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use isokiln_core::diagnostic::Diagnostic;

    use super::*;

    #[test]
    fn a_mistake_is_shown_with_file_line_caret_and_help() {
        let text = "name = \"x\"\nuses = \"pakages\"\n";
        let at = text.find("\"pakages\"").unwrap();
        let diagnostic = Diagnostic::new("unknown stage kind \"pakages\"", at..at + 9)
            .label("did you mean \"packages\"?")
            .help("valid: bootstrap, packages");
        let shown = render("p.toml", text, &Diagnostics(vec![diagnostic]));
        for part in ["error: unknown stage kind", "p.toml:2:8", "^^^^^^^^^ did you mean", "help: valid:"] {
            assert!(shown.contains(part), "{part}:\n{shown}");
        }
    }
}
