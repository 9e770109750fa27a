//! Text that came from a stranger, made safe for a terminal or a log line.
//!
//! It refuses control characters of both sets (C0 and C1, so no escape sequence survives), line and paragraph
//! separators, and the characters that turn the direction of what follows.

use std::error::Error;

/// Whether a terminal or a line reader would act on the character instead of showing it.
pub(crate) fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The text with each hostile character replaced by U+FFFD, cut to `width` characters with `…` at the end.
pub(crate) fn shown(text: &str, width: usize) -> String {
    let mut chars = text.chars().map(|c| if is_hostile(c) { '\u{fffd}' } else { c });
    let mut out: String = chars.by_ref().take(width).collect();
    if chars.next().is_some() {
        out.pop();
        out.push('…');
    }
    out
}

/// An error with the errors that caused it, as one safe line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // Wrappers often repeat what they wrap.
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = cause.source();
    }
    shown(&line, 400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_direction_marks_do_not_survive() {
        assert_eq!(
            shown("a\x1b[2Jb\u{9b}c\r\n\u{202e}d", 80),
            "a\u{fffd}[2Jb\u{fffd}c\u{fffd}\u{fffd}\u{fffd}d"
        );
    }

    #[test]
    fn cut_to_width() {
        for (text, width, expected) in
            [("abcd", 4, "abcd"), ("abcde", 4, "abc…"), ("äöüß!", 4, "äöü…"), ("", 4, ""), ("ab", 1, "…")]
        {
            assert_eq!(shown(text, width), expected, "{text} to {width}");
        }
    }
}
