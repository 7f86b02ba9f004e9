//! Slurm's lists of tasks and of nodes, as they stand in environment variables.

/// The number of tasks of a node, from Slurm's list: "2(x3),1" is 2, 2, 2, 1.
pub(crate) fn tasks_of_node(list: &str, node: usize) -> Option<usize> {
    let mut first = 0;
    for part in list.split(',') {
        let (count, times) = match part.split_once("(x") {
            Some((count, times)) => (count, times.strip_suffix(')')?.parse().ok()?),
            None => (part, 1),
        };
        first += times;
        if node < first {
            return count.parse().ok();
        }
    }
    None
}

/// The first name of Slurm's list of nodes: "gpu[03-07,9],login" begins with gpu03.
pub(crate) fn first_node(list: &str) -> String {
    let end = list.find([',', '[']).unwrap_or(list.len());
    let (name, rest) = list.split_at(end);
    let Some(numbers) = rest.strip_prefix('[') else {
        return name.to_owned();
    };
    let end = numbers.find([',', '-', ']']).unwrap_or(numbers.len());
    let after = numbers.split_once(']').map_or("", |(_, after)| after);
    let suffix = after.split(',').next().unwrap_or_default();
    format!("{name}{}{suffix}", &numbers[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_tasks_are_read() {
        let read = |list| [0, 1, 2, 3].map(|node| tasks_of_node(list, node));
        assert_eq!(read("2(x3),1"), [Some(2), Some(2), Some(2), Some(1)]);
        assert_eq!(read("4,3"), [Some(4), Some(3), None, None]);
        assert_eq!(read(""), [None; 4]);
    }

    #[test]
    fn lists_of_nodes_are_read() {
        for (list, first) in [
            ("vm", "vm"),
            ("a,b", "a"),
            ("gpu[03-07,9],login", "gpu03"),
            ("gpu[3,5]", "gpu3"),
            ("rack[1-2]-ib,x", "rack1-ib"),
        ] {
            assert_eq!(first_node(list), first, "{list}");
        }
    }
}
