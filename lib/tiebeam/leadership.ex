defmodule Tiebeam.Leadership do
  @moduledoc false
  # What `Tiebeam.Leader`, `Tiebeam.KV`, `Tiebeam.Lock`, `Tiebeam.Singleton` and the strong names share: a question to the
  # group, and its answer in their words.

  alias Tiebeam.Registry.Name
  alias Tiebeam.Table

  @timeout 5_000

  # The core answers in time; a server that is so much later hangs.
  @margin 5_000

  # A day: longer waits are a loop of the caller.
  @max_timeout 86_400_000

  @doc "Asks the group, for a process if it holds something afterwards. Blocks until the answer comes."
  @spec ask(atom, tuple | atom, timeout :: pos_integer, pid | nil) :: term
  def ask(cluster, command, timeout, pid \\ nil) do
    GenServer.call(Table.process(cluster), {:leadership, command, timeout, pid}, timeout + @margin)
  end

  @doc "The same, but the answer comes as `{reference, answer}`; none comes if the server ends."
  @spec ask_async(atom, tuple | atom, timeout :: pos_integer, pid | nil) :: reference
  def ask_async(cluster, command, timeout, pid \\ nil) do
    reference = make_ref()
    request = {:"$gen_call", {self(), reference}, {:leadership, command, timeout, pid}}
    send(Table.process(cluster), request)
    reference
  end

  @doc "What an answer is that is no success."
  @spec error(term) :: {:error, term}
  def error(:no_leader), do: {:error, :no_quorum}
  def error({:held, _value, _token}), do: {:error, :held}
  def error({:error, reason}), do: {:error, reason}
  def error(other), do: {:error, other}

  @doc "The checked options, as a map."
  @spec options!(keyword, keyword) :: map
  def options!(options, defaults) do
    keyword!(options)

    for {key, value} <- options do
      cond do
        not Keyword.has_key?(defaults, key) ->
          known = defaults |> Keyword.keys() |> Enum.map_join(", ", &inspect/1)
          raise ArgumentError, "unknown option #{inspect(key)}; the options are #{known}"

        not valid?(key, value) ->
          raise ArgumentError, "the option #{inspect(key)} cannot be #{inspect(value)}"

        true ->
          :ok
      end
    end

    defaults |> Keyword.merge(options) |> Map.new()
  end

  @doc "Whoever is used to a time as the last argument is told what is wanted here."
  def keyword!(options) do
    if Keyword.keyword?(options),
      do: options,
      else:
        raise(ArgumentError, "options are a keyword list, such as [timeout: 5_000]; got: #{inspect(options)}")
  end

  @doc "The default of the option `:timeout`."
  def timeout, do: @timeout

  defp valid?(:timeout, value), do: is_integer(value) and value in 1..@max_timeout
  defp valid?(:ttl, value), do: value == nil or (is_integer(value) and value in 1..@max_timeout)
  defp valid?(:consistency, value), do: value in [:linear, :local]
  defp valid?(:min_revision, value), do: value == nil or revision?(value)
  defp valid?(:expect, :absent), do: true
  defp valid?(:expect, {:value, _value}), do: true
  defp valid?(:expect, value), do: value == nil or revision?(value)
  defp valid?(:on_follower, value), do: value in [:forward, :error]
  defp valid?(:i_know, value), do: is_boolean(value)
  defp valid?(_key, _value), do: true

  @doc "Whether it is a number that the group may have given: a revision, a token."
  def revision?(value), do: is_integer(value) and value in 0..0xFFFFFFFFFFFFFFFF

  @doc "What others see of a holder, for the group."
  @spec holder(pid, meta :: term) :: binary
  def holder(pid, meta), do: encode({pid, meta})

  @doc "A term for the group."
  @spec encode(term) :: binary
  def encode(term), do: :erlang.term_to_binary(term, minor_version: 2)

  @doc "A term of the group; one that this node cannot make raises."
  @spec decode!(binary) :: term
  def decode!(bytes) do
    case Name.decode(bytes) do
      {:ok, term} ->
        term

      :error ->
        raise ArgumentError,
              "the value is no term in the external term format that this node can make: it is broken or compressed, or this " <>
                "node has no room for its atoms; it begins with #{inspect(binary_part(bytes, 0, min(16, byte_size(bytes))))}"
    end
  end

  @doc "A node name, checked as the core does."
  @spec node!(term) :: node
  def node!(node) do
    with true <- is_atom(node),
         [<<_, _::binary>>, <<_, _::binary>>] <- String.split(Atom.to_string(node), "@", parts: 2),
         true <- node |> Atom.to_charlist() |> Enum.all?(&(&1 in ?!..?ÿ)) do
      node
    else
      _ -> raise ArgumentError, "expected a node of the form :\"name@host\", got: #{inspect(node)}"
    end
  end
end
