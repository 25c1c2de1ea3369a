//! Text of Erlang: character data, and the formats of `io_lib:format/2` that reports and prints use.

use tiebeam_wire::Term;

/// How much text one request may print: a report is pages, not gigabytes.
const TEXT_MAX: usize = 16 << 20;

/// The text of `unicode:chardata()`: binaries, code points, and lists of these.
pub(crate) fn characters(data: &Term) -> Option<String> {
    let mut text = String::new();
    // Last in, first out: the pieces that are still to come, the next one on top.
    let mut rest = vec![data];
    while let Some(data) = rest.pop() {
        match data {
            Term::Binary(binary) => text.push_str(&String::from_utf8_lossy(binary)),
            Term::Integer(point) => text.push(char::from_u32(u32::try_from(*point).ok()?)?),
            Term::List(elements) => rest.extend(elements.iter().rev()),
            Term::Improper(list) => {
                rest.push(&list.tail);
                rest.extend(list.elements.iter().rev());
            }
            _ => return None,
        }
        if text.len() > TEXT_MAX {
            return None;
        }
    }
    Some(text)
}

/// `io_lib:format(Format, Args)`. A directive that is not known, or has no argument, is shown as it stands: a report is
/// better read with a flaw than lost.
pub(crate) fn format(format: &Term, args: &[Term]) -> String {
    let format = match format {
        Term::Atom(atom) => Some(atom.as_str().to_owned()),
        other => characters(other),
    };
    let Some(format) = format else {
        return Term::list(args).to_string();
    };
    let mut text = String::new();
    let mut args = args.iter();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '~' {
            text.push(c);
            continue;
        }
        let mut directive = String::new();
        let control = loop {
            match rest.next() {
                // Field width, precision, padding and the modifiers for Unicode and long atoms.
                Some(c @ ('0'..='9' | '-' | '.' | 't' | 'l' | 'k' | 'K')) => directive.push(c),
                Some('*') => {
                    args.next();
                }
                other => break other,
            }
        };
        let mut next = |show: fn(&Term) -> String| args.next().map(show);
        let shown = match control {
            Some('~') => Some("~".to_owned()),
            Some('n') => Some("\n".to_owned()),
            Some('p' | 'w' | 'P' | 'W') => {
                let shown = next(Term::to_string);
                if matches!(control, Some('P' | 'W')) {
                    args.next();
                }
                shown
            }
            Some('s') => next(|arg| match arg {
                Term::Atom(atom) => atom.as_str().to_owned(),
                other => characters(other).unwrap_or_else(|| other.to_string()),
            }),
            Some('c') => next(|arg| characters(arg).unwrap_or_default()),
            Some('b' | 'B' | 'f' | 'e' | 'g' | 'x' | 'X' | '#' | '+') => next(Term::to_string),
            Some('i') => next(|_| String::new()),
            _ => None,
        };
        match shown {
            Some(shown) => text.push_str(&shown),
            None => {
                text.push('~');
                text.push_str(&directive);
                text.extend(control);
            }
        }
        if text.len() > TEXT_MAX {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn character_data_nests() {
        let data = Term::list([
            Term::from("a"),
            Term::list([Term::from(98), Term::from("c")]),
            Term::from(0x20ac),
        ]);
        assert_eq!(characters(&data).as_deref(), Some("abc€"));
        assert_eq!(characters(&Term::atom("a")), None);
        assert_eq!(characters(&Term::from(0x11_0000)), None);
    }

    #[test]
    fn the_formats_of_reports_are_known() {
        let format_text = Term::charlist("~ts is ~p~n");
        assert_eq!(
            format(&format_text, &[Term::from("x"), Term::atom("ok")]),
            "x is ok\n"
        );
        assert_eq!(
            format(&Term::charlist("100~~ ~w"), &[Term::from(5)]),
            "100~ 5"
        );
    }

    #[test]
    fn a_directive_without_an_argument_is_shown() {
        assert_eq!(format(&Term::charlist("~p and ~5.2q"), &[]), "~p and ~5.2q");
    }
}
