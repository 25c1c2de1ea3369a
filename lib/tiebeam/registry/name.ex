defmodule Tiebeam.Registry.Name do
  @moduledoc false
  # Names, pids and metadata in the external term format, as the core compares them: byte for byte. A name is therefore a
  # term that is written in one way alone; the rule is `native/tiebeam_core/src/registry/name.rs`.

  # As in the core, where their reasons are.
  @max_name_bytes 1024
  @max_name_depth 16
  @max_meta_bytes 4096
  @max_scope_bytes 255
  # Integers of more bytes have another encoding.
  @max_integer Bitwise.bsl(1, 8 * 255) - 1

  # What others register may name atoms that this node does not have. They are made while the table of atoms, which is never
  # cleaned and whose overflow ends the VM, is filled to less than so many percent.
  @max_atoms 75

  @encoded_nil :erlang.term_to_binary(nil, minor_version: 2)

  @type invalid ::
          {:invalid_name, why :: String.t()}
          | {:invalid_scope, why :: String.t()}
          | {:too_long, :name | :metadata | :scope, bytes :: pos_integer, limit :: pos_integer}

  @spec encode(term) :: {:ok, binary} | {:error, invalid}
  def encode(name) do
    case problem(name, 0) do
      nil -> name |> to_bytes() |> within(:name, @max_name_bytes)
      why -> {:error, {:invalid_name, why}}
    end
  end

  @spec encode_meta(term) :: {:ok, binary} | {:error, invalid}
  def encode_meta(nil), do: {:ok, @encoded_nil}
  def encode_meta(meta), do: meta |> to_bytes() |> within(:metadata, @max_meta_bytes)

  @spec encode_pid(pid) :: binary
  def encode_pid(pid), do: to_bytes(pid)

  @spec check_scope(term) :: :ok | {:error, invalid}
  def check_scope(:default), do: :ok

  def check_scope(:global),
    do: {:error, {:invalid_scope, "the names of :global are registered with OTP's :global"}}

  def check_scope(:strong),
    do: {:error, {:invalid_scope, "names of :strong are registered on their node alone, and have no groups"}}

  def check_scope(scope) when is_atom(scope) and scope not in [nil, true, false, :""] do
    case byte_size(Atom.to_string(scope)) do
      bytes when bytes > @max_scope_bytes -> {:error, {:too_long, :scope, bytes, @max_scope_bytes}}
      _ -> :ok
    end
  end

  def check_scope(scope), do: {:error, {:invalid_scope, "a scope is an atom, got: #{inspect(scope)}"}}

  @doc "A term of another node; `:error` if it is none, is compressed, or has atoms for which there is no room."
  @spec decode(binary) :: {:ok, term} | :error
  def decode(@encoded_nil), do: {:ok, nil}
  # It could be a thousand times as large as its bytes.
  def decode(<<131, 80, _::binary>>), do: :error

  def decode(bytes) do
    {:ok, :erlang.binary_to_term(bytes, [:safe])}
  rescue
    ArgumentError -> if room_for_atoms?(), do: decode_new(bytes), else: :error
  end

  defp decode_new(bytes) do
    {:ok, :erlang.binary_to_term(bytes)}
  rescue
    ArgumentError -> :error
  end

  defp room_for_atoms? do
    100 * :erlang.system_info(:atom_count) < @max_atoms * :erlang.system_info(:atom_limit)
  end

  defp to_bytes(term), do: :erlang.term_to_binary(term, minor_version: 2)

  defp within(bytes, _part, limit) when byte_size(bytes) <= limit, do: {:ok, bytes}
  defp within(bytes, part, limit), do: {:error, {:too_long, part, byte_size(bytes), limit}}

  defp problem(name, _depth) when is_atom(name), do: nil

  defp problem(name, _depth) when is_binary(name) do
    # The limit is checked afterwards; what is far beyond it is not looked at.
    if byte_size(name) > @max_name_bytes or String.valid?(name),
      do: nil,
      else: "a binary in a name must be UTF-8"
  end

  defp problem(name, _depth) when is_integer(name) and name in -@max_integer..@max_integer, do: nil
  defp problem(name, _depth) when is_integer(name), do: "an integer in a name has at most 255 bytes"

  defp problem(name, depth)
       when (is_tuple(name) or is_list(name)) and depth == @max_name_depth and name != [],
       do: "a name is nested deeper than #{@max_name_depth}"

  defp problem(name, depth) when is_tuple(name), do: problem_in(Tuple.to_list(name), depth + 1)
  defp problem(name, depth) when is_list(name), do: problem_in(name, depth + 1)

  defp problem(name, _depth) do
    "a name is made of atoms, UTF-8 binaries, integers, and tuples and lists of these, got: " <>
      inspect(name, limit: 5, printable_limit: 100)
  end

  defp problem_in([first | rest], depth), do: problem(first, depth) || problem_in(rest, depth)
  defp problem_in([], _depth), do: nil
  defp problem_in(_tail, _depth), do: "a list in a name must be a proper one"
end
