// Questions read and answers made. A model says the same to everything: its tokens are the words of its answer, a blank
// belonging to the word behind it, as the tests' tiny real models have it.
#include <algorithm>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "sim/llama_replies.h"

namespace gpumod::sim {

namespace json = boost::json;

namespace {

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  for (const char c : text) {
    if (words.empty() || c == ' ') words.emplace_back();
    words.back() += c;
  }
  return words;
}

std::string message_text(const json::value& message) {
  const auto* object = message.if_object();
  const auto* content = object ? object->if_contains("content") : nullptr;
  if (!content) return {};
  return content->is_string() ? std::string(content->get_string()) : json::serialize(*content);
}

int integer_of(const json::object& object, std::initializer_list<const char*> keys, int fallback) {
  for (const auto* key : keys) {
    const auto* value = object.if_contains(key);
    boost::system::error_code problem;
    if (!value || !value->is_number()) continue;
    const auto number = value->to_number<std::int64_t>(problem);
    if (!problem) return static_cast<int>(std::clamp<std::int64_t>(number, -1, 1 << 30));
  }
  return fallback;
}

bool truth_of(const json::object& object, const char* key) {
  const auto* value = object.if_contains(key);
  return value && value->is_bool() && value->get_bool();
}

Result<std::string> chat_prompt(const json::object& body) {
  const auto* messages = body.if_contains("messages");
  if (!messages) return fail(ErrorCode::failed, "'messages' is required");
  if (!messages->is_array()) return fail(ErrorCode::failed, "Expected 'messages' to be an array");
  std::string prompt;
  for (const auto& message : messages->get_array())
    prompt += message_text(message);
  return prompt;
}

Result<std::string> plain_prompt(const json::object& body) {
  const auto* prompt = body.if_contains("prompt");
  if (!prompt) return fail(ErrorCode::failed, "[json.exception.out_of_range.403] key 'prompt' not found");
  return prompt->is_string() ? std::string(prompt->get_string()) : json::serialize(*prompt);
}

}  // namespace

int tokens_in(std::string_view text) {
  return std::max(1, static_cast<int>(text.size() / 4));
}

Result<LlamaQuestion> read_question(LlamaQuestion::Kind kind, const std::string& body) {
  boost::system::error_code problem;
  const auto value = json::parse(body, problem);
  if (problem) return fail(ErrorCode::failed, fmt::format("[json.exception.parse_error.101] {}", problem.message()));
  const auto* object = value.if_object();
  LlamaQuestion question;
  question.kind = kind;
  const json::object nothing;
  question.prompt = TRY(kind == LlamaQuestion::Kind::chat ? chat_prompt(object ? *object : nothing)
                                                          : plain_prompt(object ? *object : nothing));
  question.stream = truth_of(*object, "stream");
  question.most_tokens = integer_of(*object, {"max_tokens", "max_completion_tokens", "n_predict"}, -1);
  if (const auto* options = object->if_contains("stream_options"); options && options->is_object())
    question.usage_in_stream = truth_of(options->get_object(), "include_usage");
  if (const auto* value_of = object->if_contains("temperature"); value_of && value_of->is_number())
    question.temperature = value_of->to_number<double>();
  return question;
}

LlamaAnswer make_answer(const LlamaModel& model, const LlamaQuestion& question, int context) {
  LlamaAnswer answer;
  constexpr int around_a_chat = 10;  // what a template writes around the messages
  answer.prompt_tokens = tokens_in(question.prompt) + (question.kind == LlamaQuestion::Kind::chat ? around_a_chat : 1);

  auto& tokens = answer.tokens;
  const auto add = [&](std::string text, std::string shown, bool thought) {
    tokens.push_back({std::move(text), std::move(shown), thought});
  };
  if (!model.think.empty()) {
    add("<think>", "", true);
    const auto words = words_of(model.think);
    for (std::size_t i = 0; i < words.size(); ++i)
      add(i == 0 ? "\n" + words[i] : words[i], words[i], true);
    add("</think>", "", true);
  }
  const auto words = words_of(model.answer);
  const int room = std::max(1, context - answer.prompt_tokens);
  const auto most = static_cast<std::size_t>(question.most_tokens < 0 ? room : std::min(question.most_tokens, room));
  for (bool first = true; first || (model.loops && !words.empty() && tokens.size() < most); first = false) {
    for (std::size_t i = 0; i < words.size(); ++i) {
      const bool after_thought = first && i == 0 && !model.think.empty();
      const auto word = !first && i == 0 ? " " + words[i] : words[i];
      add(after_thought ? "\n\n" + word : word, word, false);
    }
  }
  if (!model.loops) add("", "", false);
  answer.cut = tokens.size() > most || model.loops;
  if (tokens.size() > most) tokens.resize(most);
  return answer;
}

std::string LlamaAnswer::text() const {
  std::string whole;
  for (const auto& token : tokens)
    whole += token.text;
  return whole;
}

std::string LlamaAnswer::content() const {
  std::string whole;
  for (const auto& token : tokens)
    if (!token.thought) whole += token.shown;
  return whole;
}

std::string LlamaAnswer::thought() const {
  std::string whole;
  for (const auto& token : tokens)
    if (token.thought) whole += token.shown;
  return whole;
}

}  // namespace gpumod::sim
