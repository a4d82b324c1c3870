//! Each kernel of the engine on the shapes of ResNet-18: `cargo bench --bench kernels [-- FILTER]`.
//!
//! Throughput in elements is operations of the definition (a multiply-add is two), so Gelem/s reads as GFLOP/s; where a
//! kernel hardly computes it is in bytes. All threads are used.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn kernels(criterion: &mut Criterion) {
    for mut case in simsiam_pipe::bench::kernels::cases() {
        let mut group = criterion.benchmark_group("kernels");
        group.throughput(if case.is_bytes { Throughput::Bytes(case.work) } else { Throughput::Elements(case.work) });
        group.bench_function(&case.name, |bencher| bencher.iter(&mut case.run));
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(1));
    targets = kernels
}
criterion_main!(benches);
