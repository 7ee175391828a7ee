use std::time::Instant;
use svae_cpu::numerics::matmul::*;
fn time(name: &str, flop: f64, mut f: impl FnMut()) {
    f();
    let reps = ((2e7 / flop) as usize).max(5);
    let mut best = f64::MAX;
    for _ in 0..30 {
        let s = Instant::now();
        for _ in 0..reps {
            f();
        }
        best = best.min(s.elapsed().as_secs_f64() / reps as f64);
    }
    println!("{name:<44} {:>8.2} us {:>7.1} GFLOP/s", best * 1e6, flop / best / 1e9);
}
fn main() {
    let v = |n: usize| -> Vec<f32> { (0..n).map(|i| (i % 17) as f32 * 0.01).collect() };
    for (what, nin, nout) in [
        ("enc0 sim", 100, 128),
        ("enc0 screen", 1187, 128),
        ("hidden", 128, 128),
        ("head", 128, 15),
        ("dec0", 15, 128),
        ("out sim", 128, 100),
        ("out screen", 128, 1187),
    ] {
        for rows in [32, 64, 128] {
            let (x, w, mut y) = (v(rows * nin), v(nin * nout), v(rows * nout));
            let flop = 2.0 * (rows * nin * nout) as f64;
            time(&format!("{what} forward a_bt rows {rows}"), flop, || {
                a_bt(&mut y, Into::Replace, Rows::new(&x, rows, nin), Rows::new(&w, nout, nin))
            });
            time(&format!("{what} forward transposed a_b rows {rows}"), flop, || {
                a_b(&mut y, Into::Replace, Rows::new(&x, rows, nin), Rows::new(&w, nin, nout))
            });
            let mut dx = v(rows * nin);
            time(&format!("{what} backward a_b rows {rows}"), flop, || {
                a_b(&mut dx, Into::Replace, Rows::new(&y, rows, nout), Rows::new(&w, nout, nin))
            });
        }
        let (x, y) = (v(128 * nin), v(128 * nout));
        for tile in [16, 32, 64, 128] {
            let tile = tile.min(nout);
            let mut dw = v(tile * nin);
            time(&format!("{what} gradient at_b {tile}"), 2.0 * (128 * nin * tile) as f64, || {
                at_b(&mut dw, nin, Into::Replace, Rows::strided(&y, 128, tile, nout), Rows::new(&x, 128, nin))
            });
        }
    }
}
