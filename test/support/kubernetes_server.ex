defmodule Support.KubernetesServer do
  @moduledoc "An API server of Kubernetes on loopback, inside TLS: answers from a table, to whoever shows the token."
  use GenServer

  @doc "Options: `:certificate` (of `Support.Certificates`), `:token`."
  def start_link(opts), do: GenServer.start_link(__MODULE__, opts)

  @doc "Its address, as the option `:server` has it."
  def url(server), do: "https://127.0.0.1:#{GenServer.call(server, :port)}"

  @doc "What it answers to `GET path`: a body, or a status and a body. What was not set is not found."
  def set(server, path, answer), do: GenServer.call(server, {:set, path, answer})

  @impl true
  def init(opts) do
    %{certificate: certificate, key: key} = opts[:certificate]
    tls = [certfile: to_charlist(certificate), keyfile: to_charlist(key)]
    {:ok, listener} = :ssl.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}, reuseaddr: true] ++ tls)
    server = self()
    spawn_link(fn -> accept(listener, server) end)
    {:ok, %{listener: listener, token: opts[:token], answers: %{}}}
  end

  @impl true
  def handle_call(:port, _from, state) do
    {:ok, {_address, port}} = :ssl.sockname(state.listener)
    {:reply, port, state}
  end

  def handle_call({:set, path, answer}, _from, state),
    do: {:reply, :ok, put_in(state.answers[path], answer)}

  def handle_call({:get, path, token}, _from, state) do
    answer =
      cond do
        token != "Bearer " <> state.token -> {401, ~s({"kind": "Status", "message": "Unauthorized"})}
        answer = state.answers[path] -> answer
        true -> {404, "404 page not found"}
      end

    {:reply, answer, state}
  end

  defp accept(listener, server) do
    {:ok, transport} = :ssl.transport_accept(listener)

    # A client that does not trust this server ends the handshake.
    spawn(fn ->
      with {:ok, socket} <- :ssl.handshake(transport, 30_000), do: serve(socket, server, "")
    end)

    accept(listener, server)
  end

  defp serve(socket, server, received) do
    case String.split(received, "\r\n\r\n", parts: 2) do
      [head, rest] ->
        [request | headers] = String.split(head, "\r\n")
        ["GET", path, "HTTP/1.1"] = String.split(request, " ")

        token =
          Enum.find_value(headers, fn header ->
            with [name, value] <- String.split(header, ": ", parts: 2),
                 "authorization" <- String.downcase(name),
                 do: value,
                 else: (_other -> nil)
          end)

        {status, body} =
          with body when is_binary(body) <- GenServer.call(server, {:get, path, token}), do: {200, body}

        length = byte_size(body)
        head = "HTTP/1.1 #{status} x\r\ncontent-type: application/json\r\ncontent-length: #{length}\r\n\r\n"
        :ok = :ssl.send(socket, [head, body])
        serve(socket, server, rest)

      [_incomplete] ->
        with {:ok, more} <- :ssl.recv(socket, 0), do: serve(socket, server, received <> more)
    end
  end
end
