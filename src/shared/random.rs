//! Random bytes from the operating system.

/// `N` random bytes from the operating system's generator.
///
/// # Panics
/// When the operating system has no randomness to give; nothing secret can be made then.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// One of `alphabet`'s bytes, each equally likely: a random byte that would favour some of them is drawn again.
pub fn letter(alphabet: &[u8]) -> u8 {
    let count = alphabet.len();
    let unbiased = 256 - 256 % count;
    loop {
        let [byte] = bytes::<1>();
        if usize::from(byte) < unbiased {
            return alphabet[usize::from(byte) % count];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_evenly_spread() {
        let alphabet = b"BCDFGHJKLMNPQRSTVWXYZ3479";
        let mut counts = [0_u32; 256];
        for _ in 0..25_000 {
            counts[usize::from(letter(alphabet))] += 1;
        }
        // 1,000 of each are expected. The bounds are eight standard deviations (31) away.
        for byte in alphabet {
            let count = counts[usize::from(*byte)];
            assert!((750..1250).contains(&count), "{}: {count}", *byte as char);
        }
    }
}
