#include "engines/probes.h"

#include <algorithm>

#include <boost/json/serialize.hpp>

#include "base/text.h"
#include "engines/launching.h"
#include "engines/reply.h"

namespace gpumod {

namespace json = boost::json;

namespace {

constexpr int probe_tokens = 8;
constexpr std::size_t shown_characters = 200;

ProbeVerdict refuse(std::string reason) {
  ProbeVerdict verdict;
  verdict.reason = std::move(reason);
  return verdict;
}

/// llama.cpp's `timings` and everybody's `usage`. A rate of 0 only says that one token is no basis for a rate.
void gather_figures(const json::value& body, ProbeVerdict& verdict) {
  const auto positive = [](std::optional<double> rate) { return rate && *rate > 0 ? rate : std::nullopt; };
  verdict.prompt_tokens_per_second = positive(number_at(body, {"timings", "prompt_per_second"}));
  verdict.tokens_per_second = positive(number_at(body, {"timings", "predicted_per_second"}));
  verdict.prompt_tokens = integer_at(body, {"usage", "prompt_tokens"});
  if (!verdict.prompt_tokens) verdict.prompt_tokens = integer_at(body, {"timings", "prompt_n"});
  verdict.generated_tokens = integer_at(body, {"usage", "completion_tokens"});
  if (!verdict.generated_tokens) verdict.generated_tokens = integer_at(body, {"timings", "predicted_n"});
}

/// The reason why this is the wrong text, "" if it is right.
std::string unexpected_text(const Probe& probe, const std::string& text) {
  if (probe.expect.empty() || text.find(probe.expect) != std::string::npos) return {};
  return fmt::format("the answer \"{}\" does not contain \"{}\"", shorten(text, 80), shorten(probe.expect, 80));
}

void judge_chat(const Probe& probe, const json::value& body, ProbeVerdict& verdict) {
  if (!find(body, {"choices", 0})) {
    verdict.reason = "the answer has no choices";
    return;
  }
  const auto content = string_at(body, {"choices", 0, "message", "content"});
  auto reasoning = string_at(body, {"choices", 0, "message", "reasoning_content"});
  if (reasoning.empty()) reasoning = string_at(body, {"choices", 0, "message", "reasoning"});  // newer vLLM
  const bool cut_short = string_at(body, {"choices", 0, "finish_reason"}) == "length";

  verdict.text = shorten(content.empty() ? reasoning : content, shown_characters);
  // A reasoning model may spend all tokens before its first visible one: it generated, so it lives.
  const bool generated_unseen = cut_short && verdict.generated_tokens.value_or(0) > 0;
  verdict.reasoning_only = content.empty() && (!reasoning.empty() || generated_unseen);
  if (content.empty() && !verdict.reasoning_only) {
    verdict.reason = "the answer is empty: neither content nor reasoning";
    return;
  }
  verdict.reason = unexpected_text(probe, content + "\n" + reasoning);
  verdict.ok = verdict.reason.empty();
}

void judge_completion(const Probe& probe, const json::value& body, ProbeVerdict& verdict) {
  auto text = string_at(body, {"choices", 0, "text"});
  if (text.empty()) text = string_at(body, {"content"});  // llama.cpp's own /completion
  verdict.text = shorten(text, shown_characters);
  if (text.empty())
    verdict.reason = "the answer has no text";
  else
    verdict.reason = unexpected_text(probe, text);
  verdict.ok = verdict.reason.empty();
}

/// OpenAI's shape, and llama.cpp's own /embedding (an array, whose vector may be one per pooled sequence).
const json::array* vector_in(const json::value& body) {
  const auto* vector = find(body, {"data", 0, "embedding"});
  if (!vector) vector = find(body, {0, "embedding", 0});
  if (vector && !vector->is_array()) vector = find(body, {0, "embedding"});
  return vector ? vector->if_array() : nullptr;
}

void judge_embedding(const Probe& probe, const json::value& body, ProbeVerdict& verdict) {
  const auto* array = vector_in(body);
  if (!array || array->empty()) {
    verdict.reason = "the answer has no embedding vector";
    return;
  }
  verdict.dimensions = static_cast<unsigned>(array->size());
  const auto vector = embedding_in(body);
  if (!vector)
    verdict.reason = "the embedding holds something that is not a finite number";
  else if (std::all_of(vector->begin(), vector->end(), [](double number) { return number == 0; }))
    verdict.reason = "the embedding is all zeros";
  else if (probe.dimensions && *probe.dimensions != *verdict.dimensions)
    verdict.reason =
        fmt::format("the embedding has {} dimensions, {} were expected", *verdict.dimensions, *probe.dimensions);
  verdict.ok = verdict.reason.empty();
}

void judge_rerank(const json::value& body, ProbeVerdict& verdict) {
  const auto relevance = relevance_in(body);
  verdict.ok = relevance.has_value();
  if (relevance)
    verdict.text = fmt::format("relevance {:.3g} and {:.3g}", relevance->first, relevance->second);
  else
    verdict.reason = "the answer does not rate both documents";
}

ProbeVerdict judge_http(const Probe& probe, const HttpReply& reply) {
  ProbeVerdict verdict;
  verdict.text = shorten(reply.body, shown_characters);
  verdict.reason = unexpected_text(probe, reply.body);
  verdict.ok = verdict.reason.empty();
  return verdict;
}

}  // namespace

ProbeKind declared_probe_kind(const Probe& probe) {
  if (probe.kind != ProbeKind::automatic) return probe.kind;
  if (!probe.path.empty()) return ProbeKind::http;
  if (probe.dimensions) return ProbeKind::embedding;
  if (!probe.prompt.empty() || !probe.expect.empty()) return ProbeKind::chat;
  return ProbeKind::none;
}

std::optional<HttpRequest> make_probe(const Service& service, ProbeKind kind) {
  if (service.port == 0) return std::nullopt;
  const auto& probe = service.probe;
  const auto prompt_or = [&](const char* usual) { return probe.prompt.empty() ? std::string(usual) : probe.prompt; };
  const auto model = model_name(service);
  json::object body{{"model", model}};
  const auto limit_generation = [&] {
    body["max_tokens"] = probe_tokens;
    body["temperature"] = 0;
    body["stream"] = false;
  };
  const char* target = nullptr;
  switch (kind) {
    case ProbeKind::automatic:
    case ProbeKind::none: return std::nullopt;
    case ProbeKind::http: return get_request(service, probe.path.empty() ? "/" : probe.path, probe.timeout);
    case ProbeKind::chat: {
      target = "/v1/chat/completions";
      const json::object message{{"role", "user"}, {"content", prompt_or("Say OK.")}};
      body["messages"] = json::array{message};
      limit_generation();
      break;
    }
    case ProbeKind::completion:
      target = "/v1/completions";
      body["prompt"] = prompt_or("One, two, three,");
      limit_generation();
      break;
    case ProbeKind::embedding:
      target = "/v1/embeddings";
      body["input"] = prompt_or("probe");
      break;
    case ProbeKind::rerank:
      target = "/v1/rerank";
      body["query"] = "What do cats eat?";
      body["documents"] = json::array{"Cats eat mice, fish and other meat.", "The train to the coast leaves at nine."};
      break;
  }
  return post_request(service, target, json::serialize(body), probe.timeout);
}

std::optional<std::vector<double>> embedding_in(const json::value& body) {
  const auto* array = vector_in(body);
  if (!array || array->empty()) return std::nullopt;
  std::vector<double> vector;
  for (const auto& element : *array) {
    const auto number = number_at(element, {});
    if (!number) return std::nullopt;
    vector.push_back(*number);
  }
  return vector;
}

std::optional<std::pair<double, double>> relevance_in(const json::value& body) {
  const auto* results = find(body, {"results"});
  if (!results || !results->is_array()) results = find(body, {"data"});
  if (!results || !results->is_array()) return std::nullopt;
  std::optional<double> right, other;
  for (const auto& result : results->get_array()) {
    auto score = number_at(result, {"relevance_score"});
    if (!score) score = number_at(result, {"score"});
    const auto index = integer_at(result, {"index"});
    if (index == 0) right = score;
    if (index == 1) other = score;
  }
  if (!right || !other) return std::nullopt;
  return std::pair(*right, *other);
}

ProbeVerdict judge_answer(const Service& service, ProbeKind kind, const HttpReply& reply,
                          const std::string& truthful_model) {
  if (!is_success(reply)) return refuse(fmt::format("the probe got {}", status_and_message(reply)));
  if (kind == ProbeKind::http) return judge_http(service.probe, reply);

  const auto body = json_body(reply);
  if (!body) return refuse(body.error().message);
  if (const auto error = error_in(*body); !error.empty())
    return refuse(fmt::format("the probe got status {} with an error: {}", reply.status, shorten(error, 200)));

  ProbeVerdict verdict;
  gather_figures(*body, verdict);
  switch (kind) {
    case ProbeKind::rerank: judge_rerank(*body, verdict); break;
    case ProbeKind::embedding: judge_embedding(service.probe, *body, verdict); break;
    case ProbeKind::completion: judge_completion(service.probe, *body, verdict); break;
    default: judge_chat(service.probe, *body, verdict); break;
  }
  const auto answered_by = string_at(*body, {"model"});
  if (verdict.ok && !truthful_model.empty() && !answered_by.empty() && answered_by != truthful_model) {
    verdict.ok = false;
    verdict.reason = fmt::format("port {} answers as model \"{}\", not as \"{}\"", service.port,
                                 shorten(answered_by, 80), shorten(truthful_model, 80));
  }
  return verdict;
}

}  // namespace gpumod
