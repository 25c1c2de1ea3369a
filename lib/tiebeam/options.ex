defmodule Tiebeam.Options do
  @moduledoc false
  # The options of `Tiebeam.start_link/1`: one schema that validates and renders the documentation.

  alias Tiebeam.Native

  @timing [
    greet_first:
      {:milliseconds, 1_000,
       "The first pause before a node that did not answer is greeted again; it doubles."},
    greet_max:
      {:milliseconds, 30_000, "The longest such pause: the time in which a healed network is noticed."},
    sync_every:
      {:milliseconds, 10_000, "The pause between two exchanges of member lists with a random member."},
    forget_after:
      {:milliseconds, 86_400_000,
       "How long a member that is dead or has left stays listed, and a dead one is dialled."}
  ]

  @schema [
    name:
      {:atom, :required,
       "The local name of the cluster, the first argument of every function. Nodes need not agree on it."},
    cluster:
      {:string, "default",
       "The identity of the cluster, the same on all its nodes. Nodes with different identities refuse each other, " <>
         "even when they are connected."},
    join:
      {:nodes, [],
       "Nodes to look for until they are found. Nodes that are connected anyway need not be named; the own name is " <>
         "skipped, so that all nodes can share one list."},
    process:
      {:atom, :tiebeam,
       "The registered name that members send to, the same on all nodes of the cluster. A second cluster on one node " <>
         "needs another one."},
    timing: {{:keyword, @timing}, [], "How often things happen, in milliseconds."}
  ]

  @type t :: %{
          name: atom,
          cluster: String.t(),
          join: [node],
          process: atom,
          timing: %{atom => pos_integer}
        }

  @doc "The options with their defaults, or an `ArgumentError` that says which one is wrong and how."
  @spec validate!(keyword) :: t
  def validate!(options) do
    options = validate!(options, @schema, "")

    case Native.new(settings(options)) do
      {:ok, _cluster} -> options
      {:error, message} -> raise ArgumentError, message
    end
  end

  @doc "What the core is made from, as of now: the node's name may change when distribution starts or stops."
  @spec settings(t) :: Native.settings()
  def settings(options) do
    %{
      node: node(),
      creation: :erlang.system_info(:creation),
      # Grows from core to core within one creation.
      incarnation: since_vm_start(),
      cluster: options.cluster,
      join: options.join,
      seed: :rand.uniform(0xFFFFFFFFFFFFFFFF),
      timing: options.timing
    }
  end

  @doc "The documentation of all options, in Markdown."
  @spec docs() :: String.t()
  def docs, do: docs(@schema, "")

  defp validate!(options, schema, path) do
    unless Keyword.keyword?(options) do
      raise ArgumentError, "expected #{path <> "options"} to be a keyword list, got: #{inspect(options)}"
    end

    case Keyword.keys(options) -- Keyword.keys(schema) do
      [] ->
        Map.new(schema, fn {key, {type, default, _doc}} ->
          {key, value!(options, path <> inspect(key), key, type, default)}
        end)

      [key | _] ->
        known = schema |> Keyword.keys() |> Enum.map_join(", ", &inspect/1)
        raise ArgumentError, "unknown or repeated option #{path <> inspect(key)}; the options are #{known}"
    end
  end

  defp value!(options, path, key, type, default) do
    case {Keyword.fetch(options, key), default} do
      {{:ok, value}, _default} -> check!(type, value, path)
      {:error, :required} -> raise ArgumentError, "the option #{path} is required"
      {:error, default} -> check!(type, default, path)
    end
  end

  defp check!({:keyword, schema}, value, path), do: validate!(value, schema, path <> " ")

  defp check!(type, value, path) do
    if valid?(type, value) do
      value
    else
      raise ArgumentError, "expected the option #{path} to be #{describe(type)}, got: #{inspect(value)}"
    end
  end

  defp valid?(:atom, value), do: is_atom(value) and value not in [nil, true, false]
  defp valid?(:string, value), do: is_binary(value) and String.valid?(value)
  defp valid?(:nodes, value), do: is_list(value) and Enum.all?(value, &valid?(:atom, &1))
  defp valid?(:milliseconds, value), do: is_integer(value) and value in 1..0xFFFFFFFF

  defp describe(:atom), do: "an atom"
  defp describe(:string), do: "a string"
  defp describe(:nodes), do: "a list of node names"
  defp describe(:milliseconds), do: "a positive number of milliseconds"
  defp describe({:keyword, _schema}), do: "a keyword list"

  defp docs(schema, indent) do
    Enum.map_join(schema, "\n", fn {key, {type, default, doc}} ->
      default =
        case {type, default} do
          {_type, :required} -> "Required."
          {{:keyword, nested}, _default} -> "\n\n" <> docs(nested, indent <> "  ")
          {_type, default} -> "Default: `#{inspect(default)}`."
        end

      "#{indent}- `#{inspect(key)}` (#{describe(type)}) - #{doc} #{default}"
    end)
  end

  defp since_vm_start do
    System.convert_time_unit(
      :erlang.monotonic_time() - :erlang.system_info(:start_time),
      :native,
      :millisecond
    )
  end
end
