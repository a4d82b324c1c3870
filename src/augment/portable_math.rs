//! Elementary functions from additions and multiplications only: unlike the platform's, they give the same
//! bits on every machine.

/// e^x for |x| ≤ 20, to about 13 digits.
pub fn exp(x: f64) -> f64 {
    // e^x = (e^(x/64))^64; the series of the small argument has converged after a dozen terms.
    let y = x / 64.0;
    let mut sum = 1.0;
    for k in (1..=14).rev() {
        sum = 1.0 + y / f64::from(k) * sum;
    }
    for _ in 0..6 {
        sum *= sum;
    }
    sum
}

/// Natural logarithm of a positive finite number, to about 14 digits.
pub fn ln(x: f64) -> f64 {
    // x = m · 2^e with m in [2/3, 4/3]; ln m = 2 · artanh((m − 1) / (m + 1)).
    let mut m = x;
    let mut e = 0_i32;
    while m > 4.0 / 3.0 {
        m *= 0.5;
        e += 1;
    }
    while m < 2.0 / 3.0 {
        m *= 2.0;
        e -= 1;
    }
    let t = (m - 1.0) / (m + 1.0);
    let t2 = t * t;
    let mut sum = 0.0;
    for k in (0..=14).rev() {
        sum = sum * t2 + 1.0 / f64::from(2 * k + 1);
    }
    2.0 * t * sum + f64::from(e) * std::f64::consts::LN_2
}

/// sin(2π · turns), to about 11 digits.
pub fn sin_turns(turns: f64) -> f64 {
    let mut t = turns - turns.floor();
    // Fold to a quarter turn on either side of 0.
    if t > 0.75 {
        t -= 1.0;
    } else if t > 0.25 {
        t = 0.5 - t;
    }
    let x = t * std::f64::consts::TAU;
    let x2 = x * x;
    let mut sum = 0.0;
    for k in (1..=8).rev() {
        let n = f64::from(2 * k);
        sum = (1.0 + sum) * -x2 / (n * (n + 1.0));
    }
    x * (1.0 + sum)
}

/// cos(2π · turns).
pub fn cos_turns(turns: f64) -> f64 {
    sin_turns(turns + 0.25)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_agree_with_the_platform() {
        for i in -200..=200 {
            let x = f64::from(i) / 37.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-12, "exp {x}");
            assert!((sin_turns(x) - (x * std::f64::consts::TAU).sin()).abs() < 1e-10, "sin {x}");
            assert!((cos_turns(x) - (x * std::f64::consts::TAU).cos()).abs() < 1e-10, "cos {x}");
            let y = x.exp();
            assert!((ln(y) - y.ln()).abs() < 1e-12, "ln {y}");
        }
    }
}
