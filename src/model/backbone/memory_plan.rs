//! Which activations can share a buffer: the ones that are never alive together.

/// When a value is written first and read last, in steps, and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    pub(crate) first: usize,
    pub(crate) last: usize,
    pub(crate) len: usize,
}

/// The buffer of each value and the length of each buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryPlan {
    pub(crate) buffer_of: Vec<usize>,
    pub(crate) buffer_len: Vec<usize>,
}

/// Assigns buffers in the order of first use; of the free ones the one whose length is closest wins.
pub(crate) fn plan_memory(lifetimes: &[Lifetime]) -> MemoryPlan {
    let mut plan = MemoryPlan { buffer_of: vec![0; lifetimes.len()], buffer_len: Vec::new() };
    let mut busy_until: Vec<usize> = Vec::new();
    let mut order: Vec<usize> = (0..lifetimes.len()).collect();
    order.sort_by_key(|&value| lifetimes[value].first);
    for value in order {
        let Lifetime { first, last, len } = lifetimes[value];
        let free = (0..busy_until.len()).filter(|&buffer| busy_until[buffer] < first);
        let buffer = free.min_by_key(|&buffer| plan.buffer_len[buffer].abs_diff(len)).unwrap_or_else(|| {
            plan.buffer_len.push(0);
            busy_until.push(0);
            busy_until.len() - 1
        });
        plan.buffer_len[buffer] = plan.buffer_len[buffer].max(len);
        busy_until[buffer] = last;
        plan.buffer_of[value] = buffer;
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_alive_together_never_share() {
        let lifetimes: Vec<Lifetime> =
            (0..40).map(|i| Lifetime { first: i, last: i + 1 + i * 7 % 5, len: 10 + i * 13 % 7 }).collect();
        let plan = plan_memory(&lifetimes);
        for (i, a) in lifetimes.iter().enumerate() {
            assert!(plan.buffer_len[plan.buffer_of[i]] >= a.len);
            for (j, b) in lifetimes.iter().enumerate().skip(i + 1) {
                let together = a.first <= b.last && b.first <= a.last;
                assert!(!together || plan.buffer_of[i] != plan.buffer_of[j], "{i} and {j}");
            }
        }
        assert!(plan.buffer_len.len() <= 7, "{:?}", plan.buffer_len);
    }
}
