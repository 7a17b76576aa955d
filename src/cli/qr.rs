//! An address as a QR code of half-block characters, for a phone.

use qrcodegen::{QrCode, QrCodeEcc};

use crate::cli::output::Screen;

/// Draws `text`, two rows of modules a line; `None` when it is too long for a code.
pub(crate) fn draw(text: &str, screen: Screen) -> Option<String> {
    let code = QrCode::encode_text(text, QrCodeEcc::Low).ok()?;
    let size = code.size();
    // With colour, black on white whatever the terminal's own colours. Without, blocks are the light modules.
    let coloured = screen.has_colour();
    let (begin, end) = match coloured {
        true => ("\x1b[30;107m", "\x1b[0m"),
        false => ("", ""),
    };
    let inked = |x, y| code.get_module(x, y) == coloured;
    let mut picture = String::new();
    for y in (-QUIET..size + QUIET).step_by(2) {
        picture.push_str(begin);
        for x in -QUIET..size + QUIET {
            // An odd number of rows has nothing below the last one.
            let below = y + 1 < size + QUIET && inked(x, y + 1);
            picture.push(match (inked(x, y), below) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        picture.push_str(end);
        picture.push('\n');
    }
    Some(picture)
}

/// Light modules around the code. The standard wants four; phones read it with two, and terminals are narrow.
const QUIET: i32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a picture without colour back into modules; `true` is dark.
    fn modules(picture: &str) -> Vec<Vec<bool>> {
        let mut rows = Vec::new();
        for line in picture.lines() {
            rows.push(line.chars().map(|c| !matches!(c, '█' | '▀')).collect());
            rows.push(line.chars().map(|c| !matches!(c, '█' | '▄')).collect());
        }
        rows
    }

    #[test]
    fn picture_holds_the_code_and_a_quiet_zone() {
        let url = "https://cli-auth.postiz.com/device/verify?user_code=WDJB-MJHT";
        let code = QrCode::encode_text(url, QrCodeEcc::Low).unwrap();
        let rows = modules(&draw(url, Screen::default()).unwrap());
        for y in -QUIET..code.size() + QUIET {
            for x in -QUIET..code.size() + QUIET {
                let drawn =
                    rows[usize::try_from(y + QUIET).unwrap()][usize::try_from(x + QUIET).unwrap()];
                assert_eq!(drawn, code.get_module(x, y), "{x} {y}");
            }
        }
    }

    #[test]
    fn picture_with_colours_inks_the_dark_modules() {
        let screen = Screen {
            stderr_is_terminal: true,
            understands_escapes: true,
            wants_colour: true,
            ..Screen::default()
        };
        let picture = draw("https://a", screen).unwrap();
        assert!(picture.starts_with("\x1b[30;107m    "));
        assert!(draw(&"a".repeat(3000), screen).is_none());
    }
}
