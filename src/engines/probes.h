// Probes: the smallest real request that proves a service, at most 8 tokens at temperature 0, and the judge of its
// answer. The same for every engine; an engine chooses the kind that "automatic" stands for.
#pragma once

#include <optional>
#include <string>

#include "engines/engine.h"

namespace gpumod {

/// What an automatic probe means where only the declaration counts: by the fields that people filled in, else none.
ProbeKind declared_probe_kind(const Probe& probe);

/// Unset for `none` and for a service without a port. `kind` must not be automatic.
std::optional<HttpRequest> make_probe(const Service& service, ProbeKind kind);

/// The vector in an answer to an embedding request, of OpenAI's shape or llama.cpp's own; nothing where there is none, or
/// where it holds something that is not a finite number.
std::optional<std::vector<double>> embedding_in(const boost::json::value& body);
/// How relevant the two documents of a rerank probe are: the one that answers its query, and the other. Nothing where
/// the answer does not say so of both.
std::optional<std::pair<double, double>> relevance_in(const boost::json::value& body);

/// `truthful_model`: the model name that the answer must carry, "" where the server cannot be held to one.
ProbeVerdict judge_answer(const Service& service, ProbeKind kind, const HttpReply& reply,
                          const std::string& truthful_model);

}  // namespace gpumod
