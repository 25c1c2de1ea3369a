defmodule Tiebeam.Discovery.KubernetesAPI.Client do
  @moduledoc false
  # One question to the API of Kubernetes: HTTPS with the authority and the token of a service account. Blocks while it asks.

  # How long the server may take, to be reached and to answer in full.
  @connect_time 5_000
  @answer_time 15_000

  # The longest answer: some 2,000 pods. A list of endpoints has a hundredth of that.
  @max_bytes 16 * 1024 * 1024

  # A profile of httpc of our own: what is set there (IPv6) is nobody else's.
  @profile Tiebeam.Discovery.KubernetesAPI

  @doc "What the server answers to a `GET` of this URL."
  @spec get(String.t(), token :: String.t(), authorities :: Path.t()) :: {:ok, binary} | {:error, term}
  def get(url, token, authorities) do
    with :ok <- start() do
      # In a process of its own: what comes late goes with it.
      task = Task.async(fn -> ask(url, token, authorities) end)

      case Task.yield(task, @connect_time + @answer_time) || Task.shutdown(task, :brutal_kill) do
        {:ok, answer} -> answer
        _late -> {:error, :timeout}
      end
    end
  end

  # They are optional applications of this package.
  defp start do
    with {:ok, _} <- Application.ensure_all_started(:ssl),
         {:ok, _} <- Application.ensure_all_started(:inets) do
      case :inets.start(:httpc, profile: @profile) do
        {:ok, _pid} -> :httpc.set_options([ipfamily: :inet6fb4], @profile)
        {:error, {:already_started, _pid}} -> :ok
        {:error, reason} -> {:error, reason}
      end
    else
      {:error, {application, reason}} -> {:error, {:application, application, reason}}
    end
  end

  defp ask(url, token, authorities) do
    headers = [
      {~c"authorization", to_charlist("Bearer " <> token)},
      {~c"accept", ~c"application/json"},
      {~c"user-agent", ~c"tiebeam"}
    ]

    tls = [
      verify: :verify_peer,
      cacertfile: to_charlist(authorities),
      customize_hostname_check: [match_fun: :public_key.pkix_verify_hostname_match_fun(:https)]
    ]

    # A redirection would take the token elsewhere.
    options = [
      ssl: tls,
      connect_timeout: @connect_time,
      timeout: @answer_time,
      autoredirect: false
    ]

    how = [sync: false, stream: :self, body_format: :binary]

    case :httpc.request(:get, {to_charlist(url), headers}, options, how, @profile) do
      {:ok, request} -> receive_answer(request, [], 0)
      {:error, reason} -> {:error, reason}
    end
  end

  defp receive_answer(request, _parts, size) when size > @max_bytes do
    :httpc.cancel_request(request, @profile)
    {:error, {:too_long, @max_bytes}}
  end

  defp receive_answer(request, parts, size) do
    receive do
      {:http, {^request, :stream_start, _headers}} ->
        receive_answer(request, parts, size)

      {:http, {^request, :stream, part}} ->
        receive_answer(request, [parts, part], size + byte_size(part))

      {:http, {^request, :stream_end, _headers}} ->
        {:ok, IO.iodata_to_binary(parts)}

      {:http, {^request, {:error, reason}}} ->
        {:error, reason}

      # Only successes are streamed.
      {:http, {^request, {{_version, status, _phrase}, _headers, body}}} ->
        {:error, {:status, status, body}}
    end
  end
end
