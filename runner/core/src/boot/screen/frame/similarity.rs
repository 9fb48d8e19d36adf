use super::{Area, Frame};

/// Pixels along a sample's side: as much as a stroke of a font is wide.
const SAMPLE: u32 = 4;
/// Samples along a block's side.
const BLOCK: usize = 8;
/// The index's constants for values up to 255: (0.01 * 255)² and (0.03 * 255)².
const C1: f64 = 6.5025;
const C2: f64 = 58.5225;

/// See [`Frame::similarity`].
pub(super) fn similarity(frame: &Frame, other: &Frame, masks: &[Area]) -> f64 {
    if (frame.width, frame.height) != (other.width, other.height) {
        return 0.0;
    }
    let (columns, samples) = grey(frame, masks);
    let (_, others) = grey(other, masks);
    let rows = samples.len() / columns.max(1);
    let (mut sum, mut weights) = (0.0, 0.0);
    for top in (0..rows).step_by(BLOCK) {
        for left in (0..columns).step_by(BLOCK) {
            let block = (top..rows.min(top + BLOCK))
                .flat_map(|row| (left..columns.min(left + BLOCK)).map(move |column| row * columns + column))
                .filter_map(|at| Some((samples[at]?, others[at]?)));
            if let Some((index, weight)) = compare(block) {
                sum += index * weight;
                weights += weight;
            }
        }
    }
    // Where nothing can be seen, nothing is proved.
    if weights == 0.0 { 0.0 } else { (sum / weights).clamp(0.0, 1.0) }
}

/// The structural similarity index of a block, and its weight.
fn compare(block: impl Iterator<Item = (f64, f64)>) -> Option<(f64, f64)> {
    let (mut n, mut a, mut b, mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
    for (x, y) in block {
        n += 1.0;
        a += x;
        b += y;
        aa += x * x;
        bb += y * y;
        ab += x * y;
    }
    if n == 0.0 {
        return None;
    }
    let (mean_a, mean_b) = (a / n, b / n);
    let (variance_a, variance_b) = ((aa / n - mean_a * mean_a).max(0.0), (bb / n - mean_b * mean_b).max(0.0));
    let covariance = ab / n - mean_a * mean_b;
    let index = (2.0 * mean_a * mean_b + C1) * (2.0 * covariance + C2)
        / ((mean_a * mean_a + mean_b * mean_b + C1) * (variance_a + variance_b + C2));
    // A block without structure still counts, but little.
    let weight = n * (0.1 + ((1.0 + variance_a / C2) * (1.0 + variance_b / C2)).ln());
    Some((index, weight))
}

/// Grey samples row by row, `None` where a mask covers one, and how many are in a row.
fn grey(frame: &Frame, masks: &[Area]) -> (usize, Vec<Option<f64>>) {
    let (columns, rows) = (frame.width.div_ceil(SAMPLE), frame.height.div_ceil(SAMPLE));
    let mut sums = vec![(0_u32, 0_u32); columns as usize * rows as usize];
    for (y, row) in frame.rows().enumerate() {
        let start = y / SAMPLE as usize * columns as usize;
        for (sample, pixels) in sums[start..].iter_mut().zip(row.chunks(SAMPLE as usize * 3)) {
            for [red, green, blue] in pixels.as_chunks::<3>().0 {
                // Luma of ITU-R BT.601, in 256ths.
                sample.0 += 77 * u32::from(*red) + 150 * u32::from(*green) + 29 * u32::from(*blue);
                sample.1 += 1;
            }
        }
    }
    let masked = |at: u32| {
        let (x, y) = (at % columns * SAMPLE, at / columns * SAMPLE);
        let within =
            |at: u32, start: u32, length: u32| at < start.saturating_add(length) && start < at + SAMPLE;
        masks.iter().any(|mask| within(x, mask.x, mask.width) && within(y, mask.y, mask.height))
    };
    let samples = (0..)
        .zip(sums)
        .map(|(at, (sum, count))| (!masked(at)).then(|| f64::from(sum) / f64::from(count.max(1)) / 256.0))
        .collect();
    (columns as usize, samples)
}
