//! The barcode of an address: a QR code as PNG.

/// Largest side, pixels.
const MAX_SIDE: u64 = 2048;
/// White modules that the standard wants around a symbol (ISO/IEC 18004, 6.3.8).
const QUIET_MODULES: usize = 4;

/// A square picture with so many pixels a side.
///
/// # Errors
/// The text is too long for a symbol, or the symbol too large for the picture.
pub fn png(text: &str, side: u64) -> Result<Vec<u8>, String> {
    let failed = |why: &str| format!("failed to generate QR code image: {why}");
    if side > MAX_SIDE {
        return Err(failed(&format!("at most {MAX_SIDE} pixels a side")));
    }
    let symbol = qrcode::QrCode::with_error_correction_level(text, qrcode::EcLevel::M)
        .map_err(|_| failed("the address is too long"))?;
    let modules = symbol.width();
    let side = side as usize;
    // a small picture does without the white around it rather than without its black
    let quiet = if side >= modules + 2 * QUIET_MODULES { QUIET_MODULES } else { 0 };
    let scale = side / (modules + 2 * quiet);
    if scale == 0 {
        return Err(failed(&format!("can not scale barcode to an image smaller than {modules}x{modules}")));
    }
    let margin = (side - scale * modules) / 2;
    let colors = symbol.to_colors();
    let mut pixels = vec![255u8; side * side];
    for (i, _) in colors.iter().enumerate().filter(|(_, c)| **c == qrcode::Color::Dark) {
        let (x, y) = (margin + i % modules * scale, margin + i / modules * scale);
        for row in y..y + scale {
            pixels[row * side + x..][..scale].fill(0);
        }
    }
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, side as u32, side as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(|e| failed(&e.to_string()))?;
    writer.write_image_data(&pixels).map_err(|e| failed(&e.to_string()))?;
    writer.finish().map_err(|e| failed(&e.to_string()))?;
    Ok(out)
}
