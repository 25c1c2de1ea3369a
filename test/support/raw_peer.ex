defmodule Support.RawPeer do
  @moduledoc """
  A node made of a socket: it does the handshake with any name, cookie and flags, then sends any bytes.

  It negotiates neither atom cache nor fragments unless told so, hence a packet is `112, 131, control, 131, payload`. It is not a
  process: the test that holds the socket reads it. Layouts: OTP, "Distribution Protocol".
  """
  import Bitwise
  alias Support.{Net, Terms}

  @enforce_keys [:socket, :name, :creation, :peer, :flags]
  defstruct @enforce_keys

  # What OTP 25 offers.
  @otp25 0xD07DF7FBD
  @published 0x1
  @dist_hdr_atom_cache 0x2000
  @fragments 0x800000
  @name_me 1 <<< 33
  @pass_through @otp25 &&& bnot(@dist_hdr_atom_cache ||| @fragments)

  # One step of a handshake may take this long: OTP's net_setuptime is 7 s.
  @patience 15_000
  @creation 0x0BADCAFE

  def otp25, do: @otp25
  def pass_through, do: @pass_through
  def published, do: @published
  def name_me, do: @name_me

  @doc "A TCP connection to the port `node` listens on, nothing said yet."
  def open(node) do
    {:ok, socket} =
      :gen_tcp.connect({127, 0, 0, 1}, Net.port_of(node), [:binary, active: false, packet: 2, nodelay: true])

    socket
  end

  @doc "The first message of a handshake."
  def send_name(name, flags, creation \\ @creation) do
    text = to_string(name)
    <<"N", flags::64, creation::32, byte_size(text)::16, text::binary>>
  end

  @doc "Says `send_name` and reads the status: `{:ok, text}` or `{:error, :closed}`."
  def introduce(socket, name, flags, creation \\ @creation) do
    :ok = :gen_tcp.send(socket, send_name(name, flags, creation))
    status(socket)
  end

  def status(socket) do
    with {:ok, <<"s", text::binary>>} <- :gen_tcp.recv(socket, 0, @patience), do: {:ok, text}
  end

  @doc "Reads the challenge: a map of its fields, or `{:error, :closed}`."
  def challenge(socket) do
    with {:ok, <<"N", flags::64, challenge::32, creation::32, n::16, name::binary-size(n), _::binary>>} <-
           :gen_tcp.recv(socket, 0, @patience) do
      {:ok, %{flags: flags, challenge: challenge, creation: creation, name: name}}
    end
  end

  def digest(cookie, challenge), do: :erlang.md5([cookie, Integer.to_string(challenge)])

  @doc """
  Connects to `node`: `{:ok, raw}`, `{:error, {:status, text}}` or `{:error, :closed}`.

  Options: `:name`, `:cookie`, `:flags`, `:creation`.
  """
  def connect(node, opts \\ []) do
    name = opts[:name] || Net.name("raw")
    flags = opts[:flags] || @pass_through
    creation = opts[:creation] || @creation
    socket = open(node)

    case introduce(socket, name, flags, creation) do
      {:ok, ok} when ok in ["ok", "ok_simultaneous"] -> prove(socket, node, name, flags, creation, opts)
      {:ok, status} -> {:error, {:status, status}}
      {:error, why} -> {:error, why}
    end
  end

  def connect!(node, opts \\ []) do
    {:ok, raw} = connect(node, opts)
    raw
  end

  @doc "Goes on after the status: challenge, reply, acknowledgement."
  def prove(socket, node, name, flags, creation \\ @creation, opts \\ []) do
    cookie = opts[:cookie] || Net.cookie()
    ours = :rand.uniform(1 <<< 32) - 1

    with {:ok, %{challenge: theirs, flags: their_flags, name: their_name}} <- challenge(socket),
         :ok = :gen_tcp.send(socket, <<"r", ours::32, digest(cookie, theirs)::binary>>),
         {:ok, <<"a", digest::binary>>} <- :gen_tcp.recv(socket, 0, @patience) do
      if digest != digest(cookie, ours), do: raise("#{node} does not know the cookie")
      if their_name != to_string(node), do: raise("#{node} calls itself #{their_name}")
      {:ok, up(socket, name, creation, node, flags &&& their_flags)}
    end
  end

  @doc "Listens and registers `name` with epmd, so that others can dial it."
  def listen(name) do
    {:ok, listener} =
      :gen_tcp.listen(0, [:binary, active: false, packet: 2, nodelay: true, ip: {127, 0, 0, 1}])

    {:ok, port} = :inet.port(listener)
    %{name: name, socket: listener, registration: Net.epmd_register(name, port)}
  end

  @doc "Takes the next connection and reads who it is: `{socket, name, flags, creation}`."
  def accept(listener) do
    {:ok, socket} = :gen_tcp.accept(listener.socket, @patience)

    {:ok, <<"N", flags::64, creation::32, n::16, name::binary-size(n), _::binary>>} =
      :gen_tcp.recv(socket, 0, @patience)

    {socket, String.to_atom(name), flags, creation}
  end

  def send_status(socket, text), do: :gen_tcp.send(socket, ["s", text])

  @doc "Goes on as the accepting side after the status."
  def accept_proof(socket, listener, node, their_flags, opts \\ []) do
    cookie = opts[:cookie] || Net.cookie()
    flags = opts[:flags] || @pass_through
    ours = :rand.uniform(1 <<< 32) - 1
    text = to_string(listener.name)

    :ok =
      :gen_tcp.send(socket, <<"N", flags::64, ours::32, @creation::32, byte_size(text)::16, text::binary>>)

    with {:ok, <<"r", theirs::32, digest::binary-size(16)>>} <- :gen_tcp.recv(socket, 0, @patience) do
      if digest != digest(cookie, ours), do: raise("#{node} does not know the cookie")
      :ok = :gen_tcp.send(socket, ["a", digest(cookie, theirs)])
      {:ok, up(socket, listener.name, @creation, node, flags &&& their_flags)}
    end
  end

  defp up(socket, name, creation, node, flags) do
    :ok = :inet.setopts(socket, packet: 4)
    %__MODULE__{socket: socket, name: name, creation: creation, peer: node, flags: flags}
  end

  @doc "A pid of this node."
  def pid(raw, id), do: Terms.pid(raw.name, id, 0, raw.creation)
  def reference(raw, words), do: Terms.reference(raw.name, raw.creation, words)

  @doc "Sends a packet: the four length bytes are added."
  def send_packet(raw, iodata), do: :gen_tcp.send(raw.socket, iodata)

  @doc "Sends a signal, with a payload for the operations that have one."
  def send_signal(raw, control), do: send_packet(raw, [head(raw), term(raw, control)])

  def send_signal(raw, control, payload),
    do: send_packet(raw, [head(raw), term(raw, control), term(raw, payload)])

  defp head(raw), do: if(header?(raw), do: <<131, 68, 0>>, else: <<112>>)

  defp term(raw, term) do
    <<131, encoded::binary>> = versioned = Terms.encode(term)
    if header?(raw), do: encoded, else: versioned
  end

  defp header?(raw), do: (raw.flags &&& (@dist_hdr_atom_cache ||| @fragments)) != 0

  @doc "Sends a message to a registered name."
  def send_name_message(raw, name, message), do: send_signal(raw, {6, pid(raw, 1), :"", name}, message)

  @doc """
  Reads the next signal: `{control, payload}` (`payload` is `nil` for operations without one), `:closed` or `:timeout`. Ticks are
  passed over. Only without atom cache and fragments.
  """
  def receive_signal(raw, timeout \\ @patience) do
    case :gen_tcp.recv(raw.socket, 0, timeout) do
      {:ok, ""} -> receive_signal(raw, timeout)
      {:ok, <<112, terms::binary>>} -> split(terms)
      {:error, :timeout} -> :timeout
      {:error, _} -> :closed
    end
  end

  defp split(terms) do
    {control, used} = :erlang.binary_to_term(terms, [:used])

    case binary_part(terms, used, byte_size(terms) - used) do
      "" -> {control, nil}
      payload -> {control, :erlang.binary_to_term(payload)}
    end
  end

  @doc "Reads signals until `fun` answers something for one of them: that answer and all that came before it."
  def receive_until(raw, fun, seen \\ []) do
    case receive_signal(raw) do
      stop when stop in [:closed, :timeout] ->
        ExUnit.Assertions.flunk("#{stop}; before it came #{inspect(Enum.reverse(seen))}")

      {control, payload} = signal ->
        if value = fun.(control, payload),
          do: {value, Enum.reverse(seen)},
          else: receive_until(raw, fun, [signal | seen])
    end
  end

  @doc """
  A round trip through the process `echo`: whatever the peer had to send before is among the signals answered. What every node
  tells a new one unasked is left out: it comes when it comes.
  """
  def round_trip(raw), do: raw |> round_trip_with_greetings() |> Enum.reject(&greeting?/1)

  defp greeting?({{6, _, _, service}, _}), do: service in [:rex, :global_name_server, :pg]
  defp greeting?(_), do: false

  @doc "The same with the greetings of `rex`, `global` and `pg`."
  def round_trip_with_greetings(raw) do
    me = pid(raw, 7)
    unique = System.unique_integer()
    send_name_message(raw, :echo, {me, unique})

    {_, before} =
      receive_until(raw, fn
        {22, _, ^me}, {_, ^unique} -> true
        {2, _, ^me}, {_, ^unique} -> true
        _, _ -> false
      end)

    before
  end

  @doc "Waits until the peer closes the connection; answers how many milliseconds that took."
  def await_closed(socket, timeout \\ @patience) do
    started = System.monotonic_time(:millisecond)
    until_closed(socket, started, started + timeout)
  end

  defp until_closed(%__MODULE__{socket: socket}, started, deadline),
    do: until_closed(socket, started, deadline)

  defp until_closed(socket, started, deadline) do
    now = System.monotonic_time(:millisecond)

    case :gen_tcp.recv(socket, 0, max(deadline - now, 0)) do
      {:ok, _} -> until_closed(socket, started, deadline)
      {:error, :timeout} -> ExUnit.Assertions.flunk("still open after #{now - started} ms")
      {:error, _} -> System.monotonic_time(:millisecond) - started
    end
  end

  def close(%__MODULE__{socket: socket}), do: :gen_tcp.close(socket)
  def close(socket), do: :gen_tcp.close(socket)
end
