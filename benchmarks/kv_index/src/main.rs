//! kv-index at the work of `bench_prefix.py`: prompts from a file, medians as JSON.
//!
//! The file holds, for each prompt, its length in 4 little-endian bytes and its UTF-8. The first
//! half is inserted, the second half only asked for. Figures are nanoseconds of this thread's CPU
//! time for one call: the median over chunks of calls.

use std::{env, fs, hint::black_box};

use kv_index::{
    compute_request_content_hashes, ChainBlockMap, ChainIndex, SequenceHash, StoredBlock, Tree,
};

const WORKERS: usize = 8;
const CHUNK: usize = 16;
const BLOCK_TOKENS: usize = 16;

fn cpu_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn median_ns(count: usize, mut call: impl FnMut(usize)) -> f64 {
    let mut took: Vec<u64> = Vec::new();
    for chunk in 0..count / CHUNK {
        let start = cpu_ns();
        for number in chunk * CHUNK..(chunk + 1) * CHUNK {
            call(number);
        }
        took.push(cpu_ns() - start);
    }
    took.sort_unstable();
    took[took.len() / 2] as f64 / CHUNK as f64
}

fn resident_bytes() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = text.split(' ').nth(1).and_then(|field| field.parse().ok()).unwrap_or(0);
    pages * 4096
}

fn main() {
    let path = env::args().nth(1).expect("the path of the prompts");
    let bytes = fs::read(path).expect("the prompts");
    let mut prompts: Vec<&str> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let size = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        prompts.push(std::str::from_utf8(&bytes[at + 4..at + 4 + size]).expect("UTF-8"));
        at += 4 + size;
    }
    let (stored, others) = prompts.split_at(prompts.len() / 2);
    let workers: Vec<String> =
        (0..WORKERS).map(|number| format!("http://worker-{number}:8000")).collect();
    let count = stored.len();
    let characters: usize = stored.iter().map(|text| text.chars().count()).sum();

    let before = resident_bytes();
    let tree = Tree::new();
    let fused = median_ns(count, |number| {
        let worker = workers[number % WORKERS].as_str();
        black_box(tree.match_and_insert_with(black_box(stored[number]), |_| Some(worker)));
    });
    let tree_bytes = resident_bytes().saturating_sub(before);
    let known = median_ns(count, |number| {
        let worker = workers[number % WORKERS].as_str();
        black_box(tree.match_and_insert_with(black_box(stored[number]), |_| Some(worker)));
    });
    let whole = median_ns(count, |number| {
        black_box(tree.match_prefix_with_counts(black_box(stored[number])));
    });
    let half = median_ns(count, |number| {
        black_box(tree.match_prefix_with_counts(black_box(others[number])));
    });
    let plain = Tree::new();
    let insert = median_ns(count, |number| {
        plain.insert_text(black_box(stored[number]), &workers[number % WORKERS]);
    });

    // A character in four stands for a token, so that blocks of 16 are of 64 characters.
    let tokens: Vec<Vec<u32>> = prompts
        .iter()
        .map(|text| text.bytes().step_by(4).map(u32::from).collect())
        .collect();
    let requests: Vec<_> =
        tokens.iter().map(|each| compute_request_content_hashes(each, BLOCK_TOKENS)).collect();
    let chains: Vec<Vec<StoredBlock>> = requests
        .iter()
        .map(|request| {
            let mut previous = SequenceHash(0);
            request
                .iter()
                .map(|&content_hash| {
                    previous = kv_index::chain_prefix_hash(previous, content_hash);
                    StoredBlock { seq_hash: previous, content_hash }
                })
                .collect()
        })
        .collect();
    let before = resident_bytes();
    let index = ChainIndex::new();
    let ids: Vec<u32> =
        workers.iter().map(|name| index.intern_worker(name).expect("a worker")).collect();
    let mut maps: Vec<ChainBlockMap> = (0..WORKERS).map(|_| ChainBlockMap::new()).collect();
    let chain_insert = median_ns(count, |number| {
        let worker = number % WORKERS;
        let _ = index.apply_stored(
            ids[worker],
            black_box(&chains[number]),
            None,
            &mut maps[worker],
        );
    });
    let chain_bytes = resident_bytes().saturating_sub(before);
    let chain_whole = median_ns(count, |number| {
        black_box(index.find_matches(black_box(&requests[number]), false));
    });
    let chain_half = median_ns(count, |number| {
        black_box(index.find_matches(black_box(&requests[count + number]), false));
    });
    println!(
        "{{\"tree\": {{\"match_and_insert\": {fused}, \"match_and_insert known\": {known}, \
         \"insert\": {insert}, \"match\": {whole}, \"match half\": {half}, \
         \"bytes\": {}}}, \"chain\": {{\"insert\": {chain_insert}, \"match\": {chain_whole}, \
         \"match half\": {chain_half}, \"bytes\": {}}}}}",
        tree_bytes as f64 / characters as f64,
        chain_bytes as f64 / characters as f64,
    );
}
