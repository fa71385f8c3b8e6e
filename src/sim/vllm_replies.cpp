#include "sim/vllm_replies.h"

#include <random>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

namespace gpumod::sim {

namespace json = boost::json;

ServerReply error_reply(int status, std::string message, std::string type, json::value parameter) {
  json::object error;
  error["message"] = std::move(message);
  error["type"] = std::move(type);
  error["param"] = std::move(parameter);
  error["code"] = status;
  json::object body;
  body["error"] = std::move(error);
  return ServerReply::json(json::serialize(body), status);
}

ServerReply bad_request(std::string message, json::value parameter) {
  return error_reply(400, std::move(message), "BadRequestError", std::move(parameter));
}

ServerReply detail_reply(int status, const char* detail) {
  return ServerReply::json(fmt::format(R"({{"detail":"{}"}})", detail), status);
}

ServerReply empty_reply(int status) {
  ServerReply reply;
  reply.status = status;
  reply.content_type.clear();
  return reply;
}

std::string random_hex() {
  static std::mt19937_64 generator{std::random_device{}()};
  return fmt::format("{:016x}{:016x}", generator(), generator());
}

std::variant<json::object, ServerReply> object_in(const ServerRequest& request) {
  const auto type = request.headers.find("content-type");
  const bool labelled = type != request.headers.end() && type->second.starts_with("application/json");
  if (!labelled) return bad_request("Unsupported Media Type: Only 'application/json' is allowed");
  boost::system::error_code problem;
  auto value = json::parse(request.body, problem);
  if (problem) return bad_request(fmt::format("the body is no JSON: {}", problem.message()));
  if (!value.is_object()) return bad_request("Input should be a valid dictionary", "body");
  return std::move(value.get_object());
}

}  // namespace gpumod::sim
