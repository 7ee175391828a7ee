use std::time::Instant;
use svae_cpu::benchmark::Shape;
use svae_cpu::model::input_layer::{Input, backward_weight, forward};
use svae_cpu::model::negative_binomial as nb;
use svae_cpu::numerics::matmul::*;
fn time(name: &str, flop: f64, mut f: impl FnMut()) {
    f();
    let reps = ((2e7 / flop) as usize).max(5);
    let mut best = f64::MAX;
    for _ in 0..60 {
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
    for shape in [Shape::Simulation, Shape::Screen] {
        let data = shape.dataset().unwrap();
        let g = data.n_genes();
        let (w, b, mut y) = (v(g * 128), v(128), v(128 * 128));
        let mut dense = v(128 * g);
        for i in 0..128 {
            let row = &mut dense[i * g..(i + 1) * g];
            row.fill(0.0);
            data.counts.row(i * 7).for_each(|g, c| row[g] = c as f32);
        }
        let nz = |i: usize| data.counts.row(i * 7);
        let flop = 2.0 * 128.0 * 128.0 * g as f64;
        let input = |s: bool| Input { dense: &dense, n_genes: g, nonzero: s.then_some(nz) };
        for sparse in [false, true] {
            time(&format!("{} forward sparse {sparse}", shape.name()), flop, || {
                forward(&mut y, input(sparse), None, &w, &b)
            });
            for tile in [32, 64, 160] {
                let mut dw = v(g * 128);
                time(&format!("{} gradient sparse {sparse} tile {tile}", shape.name()), flop, || {
                    for from in (0..g).step_by(tile) {
                        let to = (from + tile).min(g);
                        backward_weight(&mut dw[from * 128..to * 128], from..to, &y, 128, input(sparse), None);
                    }
                });
            }
        }
        let mut d = nb::Dispersion::<f32>::new(g);
        let theta: Vec<f32> = (0..g).map(|i| (i % 7) as f32 * 0.3).collect();
        time("dispersion update", 1e6, || d.update(&theta));
        let mut s = nb::Scratch::new(g);
        let mut dth = v(g);
        let logits = v(g * 128);
        let mut l = logits.clone();
        time(&format!("{} nb 128 cells", shape.name()), 1e6, || {
            l.copy_from_slice(&logits);
            for i in 0..128 {
                nb::forward_backward(
                    &mut l[i * g..(i + 1) * g],
                    &dense[i * g..(i + 1) * g],
                    nz(i),
                    2500.0,
                    &d,
                    1.0,
                    &mut dth,
                    &mut s,
                );
            }
        });
        time(&format!("{} nb forward only 128 cells", shape.name()), 1e6, || {
            l.copy_from_slice(&logits);
            for i in 0..128 {
                nb::forward(&mut l[i * g..(i + 1) * g], &dense[i * g..(i + 1) * g], 2500.0, &d, 1.0);
            }
        });
        let (h, mut dw) = (v(128 * 128), v(g * 128));
        time("output layer gradient, 64 rows a tile", flop, || {
            for from in (0..g).step_by(64) {
                let t = (g - from).min(64);
                at_b(
                    &mut dw[from * 128..(from + t) * 128],
                    128,
                    Into::Replace,
                    Rows::strided(&l[from..], 128, t, g),
                    Rows::new(&h, 128, 128),
                );
            }
        });
        for rows in [32, 64, 128] {
            let mut o = v(rows * g);
            time(&format!("output layer forward {rows} rows a block"), flop, || {
                for _ in 0..128 / rows {
                    a_bt(&mut o, Into::Replace, Rows::new(&h[..rows * 128], rows, 128), Rows::new(&w, g, 128))
                }
            });
            time(&format!("output layer backward {rows} rows a block"), flop, || {
                for i in 0..128 / rows {
                    a_b(
                        &mut y[..rows * 128],
                        Into::Replace,
                        Rows::new(&l[i * rows * g..(i + 1) * rows * g], rows, g),
                        Rows::new(&w, g, 128),
                    )
                }
            });
        }
    }
}
