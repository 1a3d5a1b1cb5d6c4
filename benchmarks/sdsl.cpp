// What may follow an n-gram by an FM-index (a wavelet tree over the BWT of reversed documents, as
// RetroLLM's released code has it), for benchmarks/ngrams.py.
//
//     sdsl TOKENS QUERIES DEPTH
//
// TOKENS: int32, 1 behind each document, others from 2 on, each document reversed. QUERIES: int32,
// DEPTH of them each. Prints seconds to build, bytes, seconds of all queries, and how many tokens
// follow in all (1 is none).
#include <chrono>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <sdsl/suffix_arrays.hpp>
#include <vector>

using Index = sdsl::csa_wt_int<sdsl::wt_int<>>;
using Clock = std::chrono::steady_clock;

static std::vector<int32_t> read(const char *path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    std::vector<int32_t> found(file.tellg() / sizeof(int32_t));
    file.seekg(0);
    file.read(reinterpret_cast<char *>(found.data()), found.size() * sizeof(int32_t));
    return found;
}

static double since(Clock::time_point begun) {
    return std::chrono::duration<double>(Clock::now() - begun).count();
}

int main(int, char **arguments) {
    auto tokens = read(arguments[1]), queries = read(arguments[2]);
    size_t depth = std::stoul(arguments[3]);
    sdsl::int_vector<> text(tokens.size(), 0, 32);
    for (size_t place = 0; place < tokens.size(); ++place) text[place] = tokens[place];
    sdsl::util::bit_compress(text);
    auto begun = Clock::now();
    Index index;
    sdsl::construct_im(index, text, 0);
    double built = since(begun);
    const auto &tree = index.wavelet_tree;
    std::vector<uint64_t> symbols(tree.sigma), before(tree.sigma), until(tree.sigma);
    std::vector<std::pair<uint64_t, uint64_t>> ranges;
    for (size_t start = 0; start + depth <= queries.size(); start += depth) {
        uint64_t low = 0, high = index.size() - 1;
        for (size_t place = 0; place < depth; ++place)
            sdsl::backward_search(index, low, high, queries[start + place], low, high);
        ranges.emplace_back(low, high + 1);
    }
    size_t total = 0;
    begun = Clock::now();
    for (auto [low, high] : ranges) {
        uint64_t count = 0;
        sdsl::interval_symbols(tree, low, high, count, symbols, before, until);
        for (size_t place = 0; place < count; ++place) total += symbols[place] > 1;
    }
    std::cout << built << " " << sdsl::size_in_bytes(index) << " " << since(begun) << " " << total
              << std::endl;
}
