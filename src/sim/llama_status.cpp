#include "sim/llama_status.h"

#include <algorithm>

#include <boost/json/parse.hpp>

namespace gpumod::sim {

namespace json = boost::json;

namespace {

constexpr const char* plain_template =
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: "
    "{% endif %}";

double rate(double tokens, double seconds) {
  return seconds > 0 ? tokens / seconds : 0;
}

}  // namespace

json::object llama_props(const LlamaSettings& settings, const LlamaIdentity& identity, const LlamaModel& model,
                         int context, std::size_t slots, bool asleep) {
  const json::object caps{{"supports_object_arguments", false},
                          {"supports_parallel_tool_calls", false},
                          {"supports_preserve_reasoning", !model.think.empty()},
                          {"supports_reasoning_effort", false},
                          {"supports_string_content", true},
                          {"supports_system_role", true},
                          {"supports_tool_calls", false},
                          {"supports_tools", false},
                          {"supports_typed_content", false}};
  return {{"default_generation_settings",
           json::object{{"params", generation_settings(nullptr, false)}, {"n_ctx", context}}},
          {"total_slots", slots},
          {"model_alias", identity.name},
          {"model_ftype", "Q4_K - Medium"},
          {"model_path", identity.path},
          {"modalities", json::object{{"vision", false}, {"video", false}, {"audio", false}}},
          {"media_marker", "<__media__>"},
          {"endpoint_slots", settings.flag("slots", true)},
          {"endpoint_props", settings.flag("props")},
          {"endpoint_metrics", settings.flag("metrics")},
          {"ui", true},
          {"ui_settings", json::object()},
          {"chat_template", plain_template},
          {"chat_template_caps", caps},
          {"bos_token", "<s>"},
          {"eos_token", "</s>"},
          {"build_info", llama_build},
          {"is_sleeping", asleep},
          {"cors_proxy_enabled", false}};
}

json::array llama_slots(const std::deque<LlamaSlot>& slots) {
  json::array list;
  for (const auto& slot : slots) {
    json::object entry{
        {"id", list.size()}, {"n_ctx", slot.context}, {"speculative", false}, {"is_processing", slot.busy}};
    if (slot.used) {
      entry["id_task"] = slot.task;
      entry["n_prompt_tokens"] = slot.prompt_tokens + slot.generated;
      entry["n_prompt_tokens_processed"] = slot.prompt_tokens;
      entry["n_prompt_tokens_cache"] = 0;
      entry["params"] = generation_settings(&slot.question, false);
      json::array next;
      next.emplace_back(json::object{{"has_next_token", slot.busy},
                                     {"has_new_line", false},
                                     {"n_remain", slot.question.most_tokens - slot.generated},
                                     {"n_decoded", slot.generated}});
      entry["next_token"] = std::move(next);
    }
    list.emplace_back(std::move(entry));
  }
  return list;
}

std::string llama_metrics(const LlamaCounters& counters, const std::deque<LlamaSlot>& slots) {
  std::string text;
  const auto add = [&](const char* name, const char* kind, const char* what, double value) {
    text += fmt::format("# HELP llamacpp:{0} {2}\n# TYPE llamacpp:{0} {1}\nllamacpp:{0} {3:.6g}\n", name, kind, what,
                        value);
  };
  const auto busy = std::count_if(slots.begin(), slots.end(), [](const LlamaSlot& slot) { return slot.busy; });
  const auto prompt = static_cast<double>(counters.prompt_tokens);
  const auto generated = static_cast<double>(counters.generated_tokens);
  add("prompt_tokens_total", "counter", "Tokens of prompts", prompt);
  add("prompt_tokens_cached_total", "counter", "Tokens of prompts that were known already", 0);
  add("prompt_seconds_total", "counter", "Seconds spent on prompts", counters.prompt_seconds);
  add("tokens_predicted_total", "counter", "Tokens generated", generated);
  add("tokens_predicted_seconds_total", "counter", "Seconds spent on generation", counters.generation_seconds);
  add("n_decode_total", "counter", "Steps of the model", generated);
  add("n_tokens_max", "counter", "The longest sequence so far", counters.longest);
  add("spec_decode_num_draft_tokens_total", "counter", "Tokens guessed ahead", 0);
  add("spec_decode_num_accepted_tokens_total", "counter", "Tokens guessed ahead and kept", 0);
  add("spec_decode_num_drafts_total", "counter", "Guesses ahead", 0);
  add("prompt_tokens_seconds", "gauge", "Tokens of prompts in a second", rate(prompt, counters.prompt_seconds));
  add("predicted_tokens_seconds", "gauge", "Tokens generated in a second",
      rate(generated, counters.generation_seconds));
  add("requests_processing", "gauge", "Requests at a slot", static_cast<double>(busy));
  add("requests_deferred", "gauge", "Requests waiting for a slot", 0);
  add("n_busy_slots_per_decode", "gauge", "Busy slots in a step", generated > 0 ? 1 : 0);
  return text;
}

json::object tokenized(const std::string& body) {
  boost::system::error_code problem;
  const auto value = json::parse(body, problem);
  const auto* content = !problem && value.is_object() ? value.get_object().if_contains("content") : nullptr;
  json::array tokens;
  if (content && content->is_string())
    for (int token = 0; token < tokens_in(std::string(content->get_string())); ++token)
      tokens.emplace_back(300 + token);
  return {{"tokens", std::move(tokens)}};
}

ServerReply llama_too_long(int prompt_tokens, int context) {
  const auto message = fmt::format(
      "request ({} tokens) exceeds the available context size ({} tokens), try increasing it", prompt_tokens, context);
  return llama_reply(json::object{{"error", json::object{{"code", 400},
                                                         {"message", message},
                                                         {"type", "exceed_context_size_error"},
                                                         {"n_prompt_tokens", prompt_tokens},
                                                         {"n_ctx", context}}}},
                     400);
}

}  // namespace gpumod::sim
