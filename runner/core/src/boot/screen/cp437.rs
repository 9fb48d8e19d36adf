//! Code page 437, the character set of the PC's text mode.

/// The shape that each code shows. Codes below 32 have shapes of their own on a screen (arrows, faces);
/// 0 and 255 show nothing. Source: the code chart "cp437" of the Unicode consortium's vendor mappings, with
/// the control codes' shapes as in the IBM PC's character ROM.
const SHAPES: &str = concat!(
    " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼",
    " !\"#$%&'()*+,-./0123456789:;<=>?",
    "@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_",
    "`abcdefghijklmnopqrstuvwxyz{|}~⌂",
    "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒ",
    "áíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐",
    "└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀",
    "αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ ",
);

/// The characters of all 256 codes.
pub(super) fn table() -> [char; 256] {
    let mut table = [' '; 256];
    for (slot, character) in table.iter_mut().zip(SHAPES.chars()) {
        *slot = character;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_place() {
        assert_eq!(SHAPES.chars().count(), 256);
        let table = table();
        for code in b' '..=b'~' {
            assert_eq!(table[usize::from(code)], char::from(code));
        }
        for (code, character) in [
            (0x18, '↑'),
            (0x81, 'ü'),
            (0xb3, '│'),
            (0xc4, '─'),
            (0xda, '┌'),
            (0xdb, '█'),
            (0xe1, 'ß'),
            (0xfe, '■'),
        ] {
            assert_eq!(table[code], character);
        }
    }
}
